# Debian packages of another release, from the archives that this machine's own apt knows. Nothing is installed.
# shellcheck shell=bash

# All archive addresses of this machine's own apt configuration, in order, in both of apt's formats.
apt_uris() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        awk '$1 == "URIs:" { for (i = 2; i <= NF; i++) print $i }
             $1 == "deb" { sub(/\[[^]]*\] */, ""); print $2 }' |
        awk '!seen[$0]++'
}

# The first of them that has SUITE.
mirror_for() {
    local suite=$1 uri probe
    probe="$(mktemp)"
    for uri in $(apt_uris); do
        if /usr/lib/apt/apt-helper download-file "${uri%/}/dists/$suite/Release" "$probe" >/dev/null 2>&1 &&
            grep -q '^Origin: Debian' "$probe"; then
            rm -f "$probe"
            printf '%s\n' "${uri%/}"
            return 0
        fi
    done
    rm -f "$probe"
    die "no archive in /etc/apt/sources.list* has Debian's '$suite'; add a Debian mirror there"
}

# private_apt STATE COMMAND...: apt-get with lists of its own, and as if nothing were installed.
private_apt() {
    local state=$1
    shift
    # A testing suite's Release file outlives its date between two releases; its signature is what counts.
    (cd "$state/debs" && apt-get -qq -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$state/lists" -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" \
        -o Acquire::Check-Valid-Until=false -o APT::Install-Recommends=false -o APT::Sandbox::User=root "$@")
}

# new_private_apt STATE SUITE...: makes the directory for private_apt, with the package lists of these suites.
new_private_apt() {
    local state=$1 suite mirror
    shift
    mkdir -p "$state"/{lists/partial,cache/archives/partial,debs}
    : >"$state/status"
    : >"$state/sources.list"
    mirror="$(mirror_for "${!#}")"
    for suite in "$@"; do
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$suite" >>"$state/sources.list"
    done
    private_apt "$state" update
}
