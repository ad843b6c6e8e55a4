#!/bin/sh
# What we add to the start of a container: `podman run` with and without us in one boot. Where BPF LSM enforces that is the hook,
# whose own phases are told, too; where AppArmor does it is portcullis-runtime.
# Under `hack/vm run --icount` a nanosecond is a guest instruction.
#
# usage: hook.sh DIRECTORY RESULTS [BENCH IMAGE]
#   DIRECTORY holds portcullis, portcullis-hook and portcullis-runtime; JSON lines are appended to RESULTS.
#   BENCH (portcullis-bench) and IMAGE (a tar of a root file system): on this very machine, with stand-ins where it refuses the
#   kernel programs, and with a podman storage of its own.
set -eu
bin=$1
results=$2
bench=${3:-}
image=${4:-}
work=$(mktemp -d /var/tmp/portcullis-bench.XXXXXX)
runs=3
unit='guest instructions'
per_phase='thousands of guest instructions'

engine() { podman "$@"; }
load() { "$bin/portcullis" --config "$work/config.yaml" load; }

clean_up() {
    "$bin/portcullis" --config "$work/config.yaml" unload --force >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap clean_up EXIT

if [ -n "$bench" ]; then
    runs=11
    unit=ns
    per_phase=microseconds
    # vfs, for an overlay may be all there is below; the limits, for raising one needs a capability that a container may lack.
    engine() {
        podman --root "$work/storage" --runroot "$work/run" --storage-driver vfs --cgroup-manager cgroupfs --runtime runc "$@"
    }
    load() { "$bench" --stand-in --json "$results"; }
    limits='--ulimit nofile=1024:1024 --ulimit nproc=1000:1000'
fi

# One policy of 100 rules that selects every container of the label app=bench.
policy() {
    cat <<'YAML'
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: bench
spec:
  severity: 5
  selector:
    matchLabels:
      app: bench
  file:
    matchDirectories:
YAML
    rule=0
    while [ "$rule" -lt 100 ]; do
        printf '      - dir: /srv/application-%s/data/\n        recursive: true\n        readOnly: true\n' "$rule"
        rule=$((rule + 1))
    done
    printf '  action: Block\n'
}

# hook STAGE: the JSON of one stage. By a shell, so that the timings of the hook are kept.
hook() {
    cat <<JSON
{
  "version": "1.0.0",
  "hook": {
    "path": "/bin/sh",
    "args": ["sh", "-c", "exec $bin/portcullis-hook --config $work/config.yaml --deadline 250 --timings $1 2>>$work/timings.$1"],
    "timeout": 300
  },
  "when": { "always": true },
  "stages": ["$1"]
}
JSON
}

# start LABEL [OPTION]...: the cost of one `podman run`.
start() {
    label=$1
    shift
    begun=$(date +%s%N)
    # shellcheck disable=SC2086 # options
    engine "$@" run ${limits:-} --rm --network=none --label "app=$label" localhost/busybox true
    echo $(($(date +%s%N) - begun))
}

# middle NAME: the median of what was kept under this name.
middle() { sort -n "$work/$1" | sed -n "$((runs / 2 + 1))p"; }

# tell NAME VALUE BASE
tell() {
    printf '%-44s %14s  %s\n' "$1" "$2" "$(awk -v a="$2" -v b="$3" 'BEGIN { printf "%+d (%.3fx)", a - b, a / b }')"
    printf '{"bench":"hook","what":"%s","unit":"%s","cost":%s,"base":%s}\n' "$1" "$unit" "$2" "$3" >>"$results"
}

mkdir -p "$work/policies" "$work/hooks.d"
policy >"$work/policies/bench.yaml"

# The runtime is told no configuration: it reads the usual one.
by_runtime() {
    gate_is() {
        printf 'policyDir: %s\nnri:\n  hook: %s\n' "$work/policies" "$1/portcullis-hook" >/etc/portcullis/config.yaml
    }
    ln -s "$bin/portcullis-runtime" "$work/portcullis-crun"
    mkdir -p /etc/portcullis
    gate_is "$bin"
    "$bin/portcullis" load
    round=0
    while [ "$round" -le "$runs" ]; do
        start bench --runtime crun >>"$work/none"
        start other --runtime "$work/portcullis-crun" >>"$work/other"
        start bench --runtime "$work/portcullis-crun" >>"$work/with"
        if [ "$round" -eq 0 ]; then
            mv "$work/with" "$work/compiled"
            rm "$work/none" "$work/other"
        fi
        round=$((round + 1))
    done
    none=$(middle none)
    tell 'podman run, AppArmor, crun' "$none" "$none"
    tell 'podman run, AppArmor, no policy selects it' "$(middle other)" "$none"
    tell 'podman run, AppArmor, 100 rules, cached' "$(middle with)" "$none"
    tell 'podman run, AppArmor, 100 rules, compiled' "$(cat "$work/compiled")" "$none"
    # Once more by a shell, which keeps the timings of the gate hook.
    printf '#!/bin/sh\nexec %s/portcullis-hook --timings "$@" 2>>%s/timings\n' "$bin" "$work" >"$work/hooks.d/portcullis-hook"
    chmod +x "$work/hooks.d/portcullis-hook"
    gate_is "$work/hooks.d"
    start bench --runtime "$work/portcullis-crun" >/dev/null
    echo
    echo "phases of createRuntime and poststop, in $per_phase"
    sed 's/^portcullis-hook: timings/cached:/' "$work/timings"
}

if [ -z "$bench" ] && ! grep -qw bpf /sys/kernel/security/lsm; then
    by_runtime
    exit
fi
printf 'policyDir: %s\nstateDir: %s\n' "$work/policies" "$work/state" >"$work/config.yaml"
for stage in createRuntime poststop; do hook "$stage" >"$work/hooks.d/$stage.json"; done

[ -z "$image" ] || engine import --quiet "$image" localhost/busybox >/dev/null
load
# In turn, and the first round does not count: whatever warms up or drifts meets all alike.
round=0
while [ "$round" -le "$runs" ]; do
    start bench >>"$work/loaded"
    start other --hooks-dir "$work/hooks.d" >>"$work/other"
    start bench --hooks-dir "$work/hooks.d" >>"$work/with"
    if [ "$round" -eq 0 ]; then
        head -n 1 "$work/timings.createRuntime" >"$work/unselected"
        sed -n 2p "$work/timings.createRuntime" >"$work/compiled"
        rm "$work/loaded" "$work/other" "$work/with"
    fi
    round=$((round + 1))
done
"$bin/portcullis" --config "$work/config.yaml" unload
round=0
while [ "$round" -lt "$runs" ]; do
    start bench >>"$work/none"
    round=$((round + 1))
done

none=$(middle none)
tell 'podman run, nothing loaded' "$none" "$none"
tell 'podman run, programs loaded, no hook' "$(middle loaded)" "$none"
tell 'podman run, hook, no policy selects it' "$(middle other)" "$none"
tell 'podman run, hook, a policy of 100 rules' "$(middle with)" "$none"
echo
echo "phases of createRuntime, in $per_phase: no policy selects it; compiled; from the cache"
# The middle one of those that found the cache warm, by their last number.
grep -v -F -f "$work/unselected" -f "$work/compiled" "$work/timings.createRuntime" | grep arming |
    sed 's/.*total=\([0-9]*\)$/\1 &/' | sort -n | cut -d' ' -f2- >"$work/warm"
sed -n "$((($(wc -l <"$work/warm") + 1) / 2))p" "$work/warm" >"$work/cached"
for kind in unselected compiled cached; do
    sed 's/^portcullis-hook: timings/'"$kind"':/' "$work/$kind"
    printf '{"bench":"hook","phases":"%s","unit":"%s","timings":"%s"}\n' "$kind" "$per_phase" "$(sed 's/.*timings //' "$work/$kind")" >>"$results"
done
