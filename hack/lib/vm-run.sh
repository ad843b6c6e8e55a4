# Running one command in one guest.
# shellcheck shell=bash
# shellcheck disable=SC2054 # the commas belong to the arguments of the kernel and of qemu

# A boot takes 4 to 8 s under software emulation; ten times that on a machine that is busy with other guests.
BOOT_DEADLINE_SECONDS=${PORTCULLIS_BOOT_DEADLINE:-180}
EXIT_TIMEOUT=124
EXIT_RIG=125
EXIT_KERNEL=70

# What a healthy kernel never says. Lockups and stalls are left out: under emulation on a busy machine they mean nothing.
KERNEL_TROUBLE='Kernel panic|BUG: (kernel|unable|KASAN|sleeping|scheduling|Bad|using)|Oops|general protection fault|refcount_t:|list_(add|del) corruption'
KERNEL_WARNING='WARNING: (CPU|possible|suspicious|bad)|------------\[ cut here \]'

KERNEL_ARGUMENTS=(
    "root=PARTUUID=$ROOT_PARTUUID" rootfstype=ext4 rw rootwait
    console=ttyS0 loglevel=5 panic=-1 mitigations=off random.trust_cpu=on net.ifnames=0
    # Debian's default leaves bpf out.
    lsm=landlock,lockdown,yama,apparmor,bpf
)

# A named CPU: `-cpu max` of qemu 7.2 panics 6.12 at once. The features taken off are those that the emulation lacks,
# and cx16, which qemu 7.2 emulates wrongly.
TCG_ARGUMENTS=(-accel 'tcg,thread=multi,tb-size=512' -cpu Haswell-v4,-pcid,-x2apic,-tsc-deadline,-invpcid,-spec-ctrl)
OLD_TCG_ARGUMENTS=("${TCG_ARGUMENTS[@]:0:3}" "${TCG_ARGUMENTS[3]},-cx16")
KVM_ARGUMENTS=(-accel kvm -cpu host)
# One instruction is one nanosecond of the guest's clock: CLOCK_MONOTONIC counts instructions, repeatably to a few.
ICOUNT_ARGUMENTS=(-accel 'tcg,thread=single,tb-size=512' "${TCG_ARGUMENTS[@]:2}" -icount shift=0,sleep=off)

qemu_base_arguments() {
    printf '%s\n' -machine q35 -nodefaults -no-user-config -display none -no-reboot -nic none
}

# kvm_boots IMAGE: /dev/kvm opens on machines where it cannot boot anything, so a real boot is the only probe.
# Without a command disk the guest says so and powers off.
kvm_boots() {
    [[ -w /dev/kvm ]] || return 1
    local log
    log="$(mktemp)"
    local -a base
    mapfile -t base < <(qemu_base_arguments)
    timeout --kill-after=2 20 "${QEMU[@]}" "${base[@]}" "${KVM_ARGUMENTS[@]}" -m 512 \
        -kernel "$1/vmlinuz" -append "${KERNEL_ARGUMENTS[*]} init=/sbin/guest-init" \
        -drive "file=$1/root.img,if=none,id=root,format=raw,snapshot=on" -device nvme,drive=root,serial=root \
        -serial "file:$log" </dev/null >/dev/null 2>&1 || true
    local code=1
    grep -q 'guest-init: no disk' "$log" && code=0
    rm -f "$log"
    return "$code"
}

# accelerator IMAGE: prints kvm or tcg. Probed once for each boot of this machine.
accelerator() {
    if [[ -n "${PORTCULLIS_ACCEL:-}" ]]; then
        printf '%s\n' "$PORTCULLIS_ACCEL"
        return
    fi
    local answer
    answer="$(cache_dir)/vm/accelerator-$(cat /proc/sys/kernel/random/boot_id)"
    if [[ ! -s "$answer" ]]; then
        if kvm_boots "$1"; then echo kvm; else echo tcg; fi >"$answer.$$"
        mv "$answer.$$" "$answer"
        say "accelerator: $(cat "$answer")"
    fi
    cat "$answer"
}

# make_disk LABEL DISK [TREE]: an ext4 disk with some room.
make_disk() {
    local label=$1 disk=$2 tree=${3:-} mib=64
    [[ -n "$tree" ]] && mib=$(($(du -sm --apparent-size "$tree" | cut -f1) * 5 / 4 + 16))
    [[ -z "$tree" ]] && mib=${RESULTS_MIB:-256}
    truncate -s "${mib}M" "$disk"
    mkfs.ext4 -q -F -L "$label" -O ^has_journal -m 0 -E lazy_itable_init=1 ${tree:+-d "$tree"} "$disk"
}

# stage_share SPEC NUMBER: DIR_OR_FILE[:GUEST_PATH]; without a path it appears as /share/NAME.
stage_share() {
    local spec=$1 number=$2 source target
    source="${spec%%:*}"
    target="/share/$(basename "$source")"
    [[ "$spec" == *:* ]] && target="${spec#*:}"
    [[ -e "$source" ]] || die "--share $source: no such file or directory" 2
    [[ "$target" == /* ]] || die "--share $spec: the path in the guest must be absolute" 2
    # Links are cheap and make a tree of any size; across file systems it is a copy.
    cp -aLl "$source" "$stage/shares/$number" 2>/dev/null || {
        rm -rf "$stage/shares/$number"
        cp -aL "$source" "$stage/shares/$number"
    }
    printf '%s\t%s\n' "$number" "$target" >>"$stage/shares.list"
}

stage_command() {
    local word
    {
        for word in "${guest_env[@]}"; do printf 'export %q\n' "$word"; done
        printf 'exec'
        printf ' %q' "$@"
        printf '\n'
    } >"$stage/command"
}

# control_value FILE KEYWORD: the word after KEYWORD in what the guest told the rig.
control_value() { awk -v key="$2" '$1 == key { print $2; exit }' "$1" 2>/dev/null; }

# wait_for_guest PID CONTROL DEADLINE BOOT_DEADLINE: 0 ended, 1 no boot, 2 timeout.
wait_for_guest() {
    local pid=$1 control=$2 deadline=$3 boot_deadline=$4 up=""
    while kill -0 "$pid" 2>/dev/null; do
        [[ -n "$up" ]] || up="$(control_value "$control" up)"
        [[ -z "$up" ]] && (($(now) > boot_deadline)) && return 1
        (($(now) > deadline)) && return 2
        sleep 0.2
    done
    [[ -n "$(control_value "$control" up)" ]] || return 1
}

stop_guest() {
    local pid=$1 tries
    kill "$pid" 2>/dev/null || return 0
    for ((tries = 0; tries < 25; tries++)); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.2
    done
    kill -9 "$pid" 2>/dev/null || true
}

# boot_once IMAGE: uses the variables of run_guest. 0: the guest ended by itself.
boot_once() {
    local image=$1 code=0
    local -a base accel drives
    mapfile -t base < <(qemu_base_arguments)
    case "$(accelerator "$image")$QEMU_GOOD" in
        kvm*) accel=("${KVM_ARGUMENTS[@]}") ;;
        tcg1) accel=("${TCG_ARGUMENTS[@]}") ;;
        *) accel=("${OLD_TCG_ARGUMENTS[@]}") smp=1 ;;
    esac
    [[ -z "$icount" ]] || accel=("${ICOUNT_ARGUMENTS[@]}")
    drives=(
        -drive "file=$image/root.img,if=none,id=root,format=raw,snapshot=on" -device nvme,drive=root,serial=root
        -drive "file=$run_dir/share.img,if=none,id=share,format=raw,read-only=on,file.locking=off" -device nvme,drive=share,serial=share
    )
    [[ -z "$results" ]] || drives+=(-drive "file=$run_dir/results.img,if=none,id=results,format=raw" -device nvme,drive=results,serial=results)
    local append="${KERNEL_ARGUMENTS[*]} $kernel_append"
    if [[ -n "$systemd" ]]; then
        append+=" init=/lib/systemd/systemd systemd.unit=multi-user.target systemd.wants=guest-run.service systemd.condition_needs_update=no"
    else
        append+=" init=/sbin/guest-init"
    fi
    : >"$run_dir/control"
    # The serial ports in order: ttyS0 kernel log, ttyS1 the command's output, ttyS2 control.
    # Nothing is read from our stdin, so that a script may run guests in a loop over its input.
    TMPDIR="$run_dir" "${QEMU[@]}" "${base[@]}" "${accel[@]}" -smp "$smp" -m "$memory" \
        -kernel "$image/vmlinuz" -append "$append" "${drives[@]}" \
        -serial "file:$run_dir/kernel.log" \
        -chardev stdio,id=output,signal=off -serial chardev:output \
        -serial "file:$run_dir/control" </dev/null 2>"$run_dir/qemu.log" &
    qemu_pid=$!
    wait_for_guest "$qemu_pid" "$run_dir/control" "$(($(now) + timeout))" "$(($(now) + BOOT_DEADLINE_SECONDS))" || code=$?
    stop_guest "$qemu_pid"
    wait "$qemu_pid" 2>/dev/null || true
    qemu_pid=""
    return "$code"
}

report_kernel_log() {
    if grep -qE "$KERNEL_WARNING" "$run_dir/kernel.log"; then
        say "$name: the guest's kernel warned:"
        grep -E -A 12 "$KERNEL_WARNING" "$run_dir/kernel.log" | head -n 40 >&2
    fi
    if grep -qE "$KERNEL_TROUBLE" "$run_dir/kernel.log"; then
        say "$name: the guest's kernel is in trouble:"
        grep -E -B 2 -A 30 "$KERNEL_TROUBLE" "$run_dir/kernel.log" | head -n 80 >&2
        return 1
    fi
}

fetch_results() {
    [[ -n "$results" ]] || return 0
    mkdir -p "$results"
    debugfs -R "rdump / $results" "$run_dir/results.img" >/dev/null 2>&1
    rm -rf "${results:?}/lost+found"
}

# The exit code of a guest that ended: the command's, unless the kernel has something to say.
outcome() {
    local code
    code="$(control_value "$run_dir/control" exit)"
    if ! report_kernel_log; then return "$EXIT_KERNEL"; fi
    if [[ -z "$code" ]]; then
        say "$name: the guest ended without an exit code; the end of its kernel log:"
        tail -n 30 "$run_dir/kernel.log" >&2
        return "$EXIT_RIG"
    fi
    [[ -z "$quiet" ]] && say "$name: command started after $(control_value "$run_dir/control" up) s of guest time, exit code $code, $(($(now) - started)) s in all"
    return "$code"
}

cleanup_run() {
    [[ -z "${qemu_pid:-}" ]] || stop_guest "$qemu_pid"
    [[ -z "${run_dir:-}" ]] || rm -rf "$run_dir"
}

# run_guest IMAGE [options of `hack/vm run`] -- COMMAND...
run_guest() (
    image=$1
    shift
    name="$(basename "$image" | cut -d- -f1)"
    shares=() guest_env=() timeout=600 memory=2048 smp=1 systemd="" results="" keep_log="" kernel_append="" quiet="" icount=""
    qemu_pid="" run_dir=""
    while (($#)); do
        case "$1" in
            --share) shares+=("${2:?}"); shift 2 ;;
            --env) guest_env+=("${2:?}"); shift 2 ;;
            --timeout) timeout="${2:?}"; shift 2 ;;
            --memory) memory="${2:?}"; shift 2 ;;
            --smp) smp="${2:?}"; shift 2 ;;
            --results) results="$(realpath -m "${2:?}")"; shift 2 ;;
            --kernel-log) keep_log="$(realpath -m "${2:?}")"; shift 2 ;;
            --append) kernel_append+=" ${2:?}"; shift 2 ;;
            --systemd) systemd=1; shift ;;
            --quiet) quiet=1; shift ;;
            --icount) icount=1 smp=1; shift ;;
            --) shift; break ;;
            *) die "unknown option '$1' (the command comes after --)" 2 ;;
        esac
    done
    (($#)) || die "no command" 2
    started="$(now)"
    choose_qemu
    run_dir="$(mktemp -d "$(cache_dir)/vm/run.XXXXXX")"
    trap cleanup_run EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    stage="$run_dir/stage"
    mkdir -p "$stage/shares"
    : >"$stage/shares.list"
    cp "$HERE/guest/main" "$stage/guest-main"
    for number in "${!shares[@]}"; do stage_share "${shares[$number]}" "$number"; done
    stage_command "$@"
    make_disk pc-share "$run_dir/share.img" "$stage"
    rm -rf "$stage"
    [[ -z "$results" ]] || make_disk pc-results "$run_dir/results.img"

    for attempt in 1 2; do
        booted=0
        boot_once "$image" || booted=$?
        [[ -z "$keep_log" ]] || cp "$run_dir/kernel.log" "$keep_log"
        case "$booted" in
            0) break ;;
            1)
                say "$name: no boot at attempt $attempt; the end of the kernel log:"
                tail -n 15 "$run_dir/kernel.log" "$run_dir/qemu.log" >&2
                [[ "$attempt" == 1 ]] || exit "$EXIT_RIG"
                ;;
            2)
                say "$name: the command did not end within $timeout s; the guest was stopped"
                report_kernel_log || true
                fetch_results
                exit "$EXIT_TIMEOUT"
                ;;
        esac
    done
    fetch_results
    outcome
)
