# Container images without a registry: root file systems as tars, for `podman import`. Made once, kept in the cache.
# shellcheck shell=bash

# A compiler, and a package manager to refuse: the workload of the tests that start many processes from many places.
CONTAINER_SUITE=trixie
CONTAINER_PACKAGES=(apt gcc libc6-dev)

write_busybox_tree() {
    local tree=$1 applet
    mkdir -p "$tree"/{bin,sbin,usr/bin,usr/sbin,etc,dev,proc,sys,tmp,var/www,run/secrets,root,home/user}
    chmod 1777 "$tree/tmp"
    install -m 0755 "$(command -v busybox)" "$tree/bin/busybox"
    for applet in $("$tree/bin/busybox" --list); do
        [[ "$applet" == busybox ]] || ln -s busybox "$tree/bin/$applet"
    done
    ln -s ../../bin/busybox "$tree/usr/bin/env"
    printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n' >"$tree/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\n' >"$tree/etc/group"
    printf 'root:*:19000:0:99999:7:::\n' >"$tree/etc/shadow"
    chmod 0640 "$tree/etc/shadow"
    chown 1000:1000 "$tree/home/user"
    printf 'hello\n' >"$tree/var/www/index.html"
}

# The path of a tar of a root file system that has a static busybox and its names.
busybox_tar() {
    local version tar tree
    version="$(sha256sum "$(command -v busybox)" "$HERE/lib/oci-images.sh" | sha256sum | cut -c1-12)"
    tar="$(cache_dir)/oci/busybox-$version.tar"
    if [[ ! -e "$tar" ]]; then
        tree="$(mktemp -d)"
        write_busybox_tree "$tree"
        mkdir -p "${tar%/*}"
        tar --sort=name --mtime=@0 -C "$tree" -cf "$tar.$$" .
        mv "$tar.$$" "$tar"
        rm -rf "$tree"
    fi
    printf '%s\n' "$tar"
}

make_debian_tar() {
    local tar=$1
    [[ -e "$tar" ]] && return 0
    say "making the Debian container image (once; kept in $tar)"
    mkdir -p "${tar%/*}"
    # mmdebstrap takes the format from the suffix.
    debootstrap_tree "$CONTAINER_SUITE" "$tar.partial.tar" "$(IFS=,; echo "${CONTAINER_PACKAGES[*]}")" >"$tar.log" 2>&1 || {
        tail -n 30 "$tar.log" >&2
        die "mmdebstrap failed, see $tar.log"
    }
    mv "$tar.partial.tar" "$tar"
}

# The path of a tar of a small Debian with apt and gcc.
debian_tar() {
    local version tar
    version="$(printf '%s\n' "$CONTAINER_SUITE" "${CONTAINER_PACKAGES[@]}" "${UNWANTED[@]}" | sha256sum | cut -c1-12)"
    tar="$(cache_dir)/oci/debian-$version.tar"
    [[ -e "$tar" ]] || with_lock oci-debian make_debian_tar "$tar" >&2
    printf '%s\n' "$tar"
}
