# Images of the guests: a Debian root file system on a partitioned disk, and its kernel, kept in the cache.
# Each is keyed by a hash of its recipe, so that it is made once and made again only when the recipe changes.
# shellcheck shell=bash
# shellcheck source=hack/lib/say.sh
. "$HERE/lib/say.sh"
# shellcheck source=hack/lib/apt.sh
. "$HERE/lib/apt.sh"

# The kernels that are tested, each with the Debian release it comes from.
# Oldest first: 6.1 has no bpf_rdonly_cast, 6.12 is the current long-term kernel, 7.2 the newest that Debian has.
declare -rA SUITES=([6.1]=bookworm [6.12]=trixie [7.2]=forky)
declare -ra KERNELS=(6.1 6.12 7.2)

# podman with both runtimes; netavark and nftables for its default network; catatonit for --init; strace and bpftool
# for whoever has to find out why a test failed; apparmor is the parser, see guest/main.
GUEST_PACKAGES=(
    linux-image-cloud-amd64
    apparmor bpftool busybox-static ca-certificates catatonit conmon containerd crun dbus e2fsprogs iproute2 iptables kmod netavark nftables
    podman procps runc strace systemd systemd-sysv util-linux
)

# Docker on one of them, as it would be the same once more: 124 MB, 6 s of making the image.
declare -rA MORE_PACKAGES=([6.12]='docker-cli docker.io')

# Half of what gcc brings: optimising at link time and sanitizers, which nothing here compiles with.
UNWANTED=('/usr/libexec/gcc/*/lto1' '/usr/bin/*lto-dump*' '/usr/lib/*san.so*' '/usr/lib/gcc/*san.a' '/usr/lib/*gprofng*')

ROOT_DISK_MIB=4096
PARTITION_START_MIB=1
# The kernel finds its root by this identity, whatever order the disks appear in.
DISK_ID=0x504f5254
# shellcheck disable=SC2034 # used by vm-run.sh
ROOT_PARTUUID=504f5254-01

guest_packages() { printf '%s\n' "${GUEST_PACKAGES[*]}${MORE_PACKAGES[$1]:+ ${MORE_PACKAGES[$1]}}"; }

suite_of() { printf '%s\n' "${SUITES[$1]:-}"; }

require_kernel_name() {
    [[ -n "${1:-}" && -n "${SUITES[$1]:-}" ]] || die "unknown guest '${1:-}': one of ${KERNELS[*]}" 2
}

# debootstrap_tree SUITE TARGET PACKAGES(comma separated)
# TARGET is a directory, or a .tar that is then written directly.
# A testing suite's Release file outlives its date between two releases; its signature is what counts.
debootstrap_tree() {
    local suite=$1 target=$2 packages=$3 mirror
    mirror="$(mirror_for "$suite")"
    INITRD=No mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
        --aptopt='Acquire::Check-Valid-Until "false"' \
        --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/i18n/*' \
        "${UNWANTED[@]/#/--dpkgopt=path-exclude=}" \
        "$suite" "$target" "$mirror"
}

image_recipe_hash() {
    {
        printf '%s\n' "$1" "${SUITES[$1]}" "$(guest_packages "$1")" "${UNWANTED[*]}"
        declare -f debootstrap_tree make_root_disk configure_root write_import_script import_images
        cat "$HERE/guest/init"
        declare -f busybox_tar debian_tar
        printf '%s\n' "${CONTAINER_PACKAGES[*]}"
    } | sha256sum | cut -c1-12
}

image_dir() { printf '%s/vm/%s-%s\n' "$(cache_dir)" "$1" "$(image_recipe_hash "$1")"; }

configure_root() {
    local root=$1
    install -m 0755 "$HERE/guest/init" "$root/sbin/guest-init"
    install -d "$root/results" "$root/etc/systemd/system"
    cat >"$root/etc/systemd/system/guest-run.service" <<'UNIT'
[Unit]
Description=The command of this run
After=basic.target

[Service]
Type=exec
ExecStart=/sbin/guest-init systemd
Delegate=yes
LimitNOFILE=65536
UNIT
    # There is nothing to log in to, and nothing that a test needs from these.
    local unit
    for unit in getty.target serial-getty@ttyS0.service systemd-timesyncd.service systemd-networkd-wait-online.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    : >"$root/etc/fstab"
    printf 'guest\n' >"$root/etc/hostname"
    printf '127.0.0.1 localhost guest\n' >"$root/etc/hosts"
    rm -rf "$root"/boot/initrd* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
}

# make_root_disk TREE DISK: a partitioned disk made without mounting anything.
make_root_disk() {
    local tree=$1 disk=$2
    truncate -s "${ROOT_DISK_MIB}M" "$disk"
    printf 'label: dos\nlabel-id: %s\nstart=%s, type=83\n' "$DISK_ID" "$((PARTITION_START_MIB * 2048))" |
        sfdisk --quiet "$disk"
    # No journal: the disk is thrown away after each run.
    mkfs.ext4 -q -L pc-root -O ^has_journal -E "offset=$((PARTITION_START_MIB * 1048576)),lazy_itable_init=0" \
        -d "$tree" "$disk" "$((ROOT_DISK_MIB - PARTITION_START_MIB - 1))M"
}

# What is done once, so that no run has to: the container images are imported, and podman makes its database. In the guest's own
# root directory, with its own podman; /run/import has the images.
write_import_script() {
    cat <<'SCRIPT'
set -eu
import() {
    podman --cgroup-manager=cgroupfs --events-backend=none --storage-driver=overlay import --quiet --change "CMD=$3" \
        "/run/import/$1" "localhost/$2:latest"
    podman --cgroup-manager=cgroupfs --events-backend=none --storage-driver=overlay tag "localhost/$2:latest" "$2:latest"
}
import busybox.tar busybox '["/bin/sh"]'
import debian.tar debian '["/bin/bash"]'
SCRIPT
}

# import_images TREE: a change of root, in a mount namespace that ends with it.
import_images() {
    local tree=$1 busybox debian
    busybox="$(busybox_tar)"
    debian="$(debian_tar)"
    write_import_script >"$tree/tmp/import"
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --propagation private -- bash -c '
        set -eu
        tree=$1
        mount --bind "$tree" "$tree"
        mount -t proc proc "$tree/proc"
        mount --rbind /sys "$tree/sys"
        mount --rbind /dev "$tree/dev"
        mount -t tmpfs tmpfs "$tree/run"
        mkdir "$tree/run/import"
        for image in busybox="$2" debian="$3"; do
            : >"$tree/run/import/${image%%=*}.tar"
            mount --bind "${image#*=}" "$tree/run/import/${image%%=*}.tar"
        done
        cd "$tree"
        exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /bin/bash /tmp/import
    ' import-images "$tree" "$busybox" "$debian"
    rm -f "$tree/tmp/import"
}

build_image() {
    local kernel=$1 dir=$2 started work packages
    [[ -e "$dir/ready" ]] && return 0 # another process made it while this one waited for the lock
    [[ $EUID -eq 0 ]] || die "images can be made by root only (mmdebstrap --mode=root keeps owners and device nodes)"
    started="$(now)"
    say "making the $kernel guest from Debian ${SUITES[$kernel]} (once; kept in $dir)"
    work="$dir.partial"
    rm -rf "$work"
    mkdir -p "$work"
    packages="$(guest_packages "$kernel")"
    debootstrap_tree "${SUITES[$kernel]}" "$work/tree" "${packages// /,}" >"$work/mmdebstrap.log" 2>&1 || {
        tail -n 30 "$work/mmdebstrap.log" >&2
        die "mmdebstrap failed, see $work/mmdebstrap.log"
    }
    cp "$work"/tree/boot/vmlinuz-* "$work/vmlinuz"
    basename "$work"/tree/boot/vmlinuz-* | sed s/vmlinuz-// >"$work/release"
    configure_root "$work/tree"
    import_images "$work/tree" >"$work/import.log" 2>&1 || {
        tail -n 30 "$work/import.log" >&2
        die "the container images could not be imported, see $work/import.log"
    }
    make_root_disk "$work/tree" "$work/root.img"
    rm -rf --one-file-system "$work/tree"
    chmod 0444 "$work/root.img"
    : >"$work/ready"
    rm -rf "$dir"
    mv "$work" "$dir"
    say "$kernel: image ready after $(($(now) - started)) s (kernel $(cat "$dir/release"))"
}

# ensure_image KERNEL: prints the image's directory.
ensure_image() {
    local dir
    dir="$(image_dir "$1")"
    [[ -e "$dir/ready" ]] || with_lock "vm-$1" build_image "$1" "$dir" >&2
    printf '%s\n' "$dir"
}
