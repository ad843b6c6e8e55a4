# Which qemu runs the guests. Debian 12's 7.2 crashes guests under software emulation (cmpxchg16b and iret are emulated
# wrongly now and then: a 6.12 kernel dies in kmalloc in a third of its boots, 7.x kernels with two CPUs); 10.0, which the
# same release has in its backports, does not. It is unpacked into the cache, so that the machine's own packages stay.
# shellcheck shell=bash
# shellcheck disable=SC2034 # QEMU_GOOD is read by vm-run.sh

QEMU_GOOD_MAJOR=9
QEMU_PACKAGES=(qemu-system-x86 qemu-system-common qemu-system-data seabios)

qemu_major() { "$@" --version | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p'; }

unpack_qemu() {
    local dir=$1 suite=$2 state deb
    [[ -e "$dir/ready" ]] && return 0
    say "unpacking qemu from $suite (once; kept in $dir)"
    rm -rf "$dir"
    state="$dir/apt"
    new_private_apt "$state" "${suite%-backports}" "$suite"
    private_apt "$state" download -t "$suite" "${QEMU_PACKAGES[@]}"
    for deb in "$state"/debs/*.deb; do dpkg -x "$deb" "$dir"; done
    rm -rf "$state"
    : >"$dir/ready"
}

# Sets QEMU, the command with its data directories, and QEMU_GOOD when emulation with it can be relied on.
choose_qemu() {
    QEMU=("${PORTCULLIS_QEMU:-qemu-system-x86_64}")
    QEMU_GOOD=""
    command -v "${QEMU[0]}" >/dev/null || die "${QEMU[0]} is missing; run hack/deps" 125
    if (($(qemu_major "${QEMU[@]}") >= QEMU_GOOD_MAJOR)); then
        QEMU_GOOD=1
        return
    fi
    [[ -z "${PORTCULLIS_QEMU:-}" ]] || return 0
    local codename dir
    codename="$(. /etc/os-release && echo "${VERSION_CODENAME:-}")"
    dir="$(cache_dir)/qemu/$codename-backports"
    # In a process of its own: without backports the machine's own qemu has to do.
    [[ -e "$dir/ready" ]] || "$HERE/vm" unpack-qemu "$dir" "$codename-backports" >&2 ||
        say "no newer qemu in $codename-backports: guests may crash at boot and are then booted again"
    [[ -e "$dir/ready" ]] || return 0
    QEMU=("$dir/usr/bin/qemu-system-x86_64" -L "$dir/usr/share/qemu" -L "$dir/usr/share/seabios")
    (($(qemu_major "${QEMU[@]}") < QEMU_GOOD_MAJOR)) || QEMU_GOOD=1
}
