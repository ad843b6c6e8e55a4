#!/bin/sh
# What the hook adds to the start of a container: `podman run` with and without it in one boot, and the hook's own phases.
# Under `hack/vm run --icount` a nanosecond is a guest instruction.
#
# usage: hook.sh DIRECTORY RESULTS    DIRECTORY holds portcullis and portcullis-hook; JSON lines are appended to RESULTS
set -eu
bin=$1
results=$2
work=$(mktemp -d /var/tmp/portcullis-bench.XXXXXX)
runs=3
trap '"$bin/portcullis" --config "$work/config.yaml" unload --force >/dev/null 2>&1; rm -rf "$work"' EXIT

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
    podman "$@" run --rm --network=none --label "app=$label" localhost/busybox true
    echo $(($(date +%s%N) - begun))
}

# middle NAME: the median of what was kept under this name.
middle() { sort -n "$work/$1" | sed -n "$((runs / 2 + 1))p"; }

# tell NAME VALUE BASE
tell() {
    printf '%-44s %14s  %s\n' "$1" "$2" "$(awk -v a="$2" -v b="$3" 'BEGIN { printf "%+d (%.3fx)", a - b, a / b }')"
    printf '{"bench":"hook","what":"%s","instructions":%s,"base":%s}\n' "$1" "$2" "$3" >>"$results"
}

mkdir -p "$work/policies" "$work/hooks.d"
policy >"$work/policies/bench.yaml"
printf 'policyDir: %s\n' "$work/policies" >"$work/config.yaml"
for stage in createRuntime poststop; do hook "$stage" >"$work/hooks.d/$stage.json"; done

"$bin/portcullis" --config "$work/config.yaml" load
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
echo 'phases of createRuntime, in thousands of guest instructions: no policy selects it; compiled; from the cache'
tail -n 1 "$work/timings.createRuntime" >"$work/cached"
for kind in unselected compiled cached; do
    sed 's/^portcullis-hook: timings/'"$kind"':/' "$work/$kind"
    printf '{"bench":"hook","phases":"%s","timings":"%s"}\n' "$kind" "$(sed 's/.*timings //' "$work/$kind")" >>"$results"
done
