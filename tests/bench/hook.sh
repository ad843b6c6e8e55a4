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

# median LABEL [OPTION]...
median() {
    start "$@" >/dev/null
    count=0
    while [ "$count" -lt "$runs" ]; do
        start "$@"
        count=$((count + 1))
    done | sort -n | sed -n "$((runs / 2 + 1))p"
}

# tell NAME VALUE BASE
tell() {
    printf '%-44s %14s  %s\n' "$1" "$2" "$(awk -v a="$2" -v b="$3" 'BEGIN { printf "%+d (%.3fx)", a - b, a / b }')"
    printf '{"bench":"hook","what":"%s","instructions":%s,"base":%s}\n' "$1" "$2" "$3" >>"$results"
}

mkdir -p "$work/policies" "$work/hooks.d"
policy >"$work/policies/bench.yaml"
printf 'policyDir: %s\n' "$work/policies" >"$work/config.yaml"
for stage in createRuntime poststop; do hook "$stage" >"$work/hooks.d/$stage.json"; done

none=$(median bench)
tell 'podman run, no hook, nothing loaded' "$none" "$none"
"$bin/portcullis" --config "$work/config.yaml" load
loaded=$(median bench)
tell 'podman run, no hook, programs loaded' "$loaded" "$none"
other=$(median other --hooks-dir "$work/hooks.d")
tell 'podman run, hook, no policy selects it' "$other" "$none"
: >"$work/timings.createRuntime"
with=$(median bench --hooks-dir "$work/hooks.d")
tell 'podman run, hook, a policy of 100 rules' "$with" "$none"
echo
echo 'phases of createRuntime, in thousands of guest instructions (first: compiled; last: from the cache)'
sed -n -e 1p -e '$p' "$work/timings.createRuntime"
"$bin/portcullis" --config "$work/config.yaml" status -o json >"$work/status.json" || true
printf '{"bench":"hook","phases":"%s"}\n' "$(tail -n 1 "$work/timings.createRuntime")" >>"$results"
