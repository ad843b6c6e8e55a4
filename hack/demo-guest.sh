#!/bin/sh
# Portcullis at work with real Podman: five stories, each with one action that is allowed and one that is not, the alert
# that the kernel sent, and the line of the policy that decided.
#
# usage: demo-guest.sh BIN_DIR EXAMPLES_DIR    as root, on a machine whose kernel enforces BPF LSM programs and where
# podman has the images busybox and debian. hack/demo makes all this so. Touches nothing but a directory of its own,
# /run/portcullis and the kernel programs, which it loads and removes.
set -u
bin=$1
examples=$2
work=$(mktemp -d /var/tmp/portcullis-demo.XXXXXX)
config=$work/config.yaml
hooks=$work/hooks.d
alerts=$work/alerts
wrong=0
summary=$work/summary
: >"$summary"

colour=${DEMO_COLOUR:-auto}
[ "$colour" != auto ] || [ ! -t 1 ] || colour=always
if [ "$colour" = always ]; then
    bold=$(printf '\033[1m') green=$(printf '\033[32m') red=$(printf '\033[31m') dim=$(printf '\033[2m') plain=$(printf '\033[0m')
else
    bold='' green='' red='' dim='' plain=''
fi

portcullis() { "$bin/portcullis" --config "$config" "$@"; }
podman() { command podman --hooks-dir "$hooks" "$@"; }

finish() {
    [ -z "${follower:-}" ] || kill "$follower" 2>/dev/null
    command podman rm -f -t 0 demo-web >/dev/null 2>&1
    portcullis unload --force >/dev/null 2>&1
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# --- setting up: what an administrator does once ---

set_up() {
    mkdir -p "$work/policies" "$hooks" "$work/token"
    cp "$examples"/*.yaml "$work/policies/"
    printf 'policyDir: %s\n' "$work/policies" >"$config"
    printf 'eyJhbGciOiJSUzI1NiJ9.not-a-real-token\n' >"$work/token/token"
    for stage in createRuntime poststop; do
        cat >"$hooks/portcullis-$stage.json" <<JSON
{
  "version": "1.0.0",
  "hook": { "path": "$bin/portcullis-hook", "args": ["portcullis-hook", "--config", "$config", "$stage"], "timeout": 60 },
  "when": { "always": true },
  "stages": ["$stage"]
}
JSON
    done
    echo "${bold}portcullis policy check${plain} ${dim}(the five policies of contrib/examples)${plain}"
    portcullis policy check "$work/policies" >"$work/check" || { cat "$work/check"; exit 1; }
    tail -n 1 "$work/check"
    echo
    echo "${bold}portcullis load${plain}"
    portcullis load || exit 1
    : >"$alerts"
    portcullis events >>"$alerts" 2>"$work/events.err" &
    follower=$!
}

# Output of a command, with the policies' names as they are in the repository.
indented() { sed -e "s#$work/policies/#contrib/examples/#g" -e 's/^/   | /' "$@"; }

# --- the words that stories are told with ---

story() {
    echo
    echo "${bold}$1. $2${plain}  ${dim}contrib/examples/$3${plain}"
    title="$1. $2"
    policy=$work/policies/$3
}

# judge WHAT EXPECTED CODE: what came of a command, by its exit code and by what it said. A command that failed for
# another reason was not denied. (Each of the denied commands works in a container without a policy.)
judge() {
    if [ "$3" -eq 0 ]; then
        got=allowed
    elif grep -qiE 'permission denied|operation not permitted' "$work/output"; then
        got=denied
    else
        got='broken'
    fi
    if [ "$got" = "$2" ]; then
        echo "   ${green}$got${plain}, as it should be"
        echo "ok    $title: $2: $1" >>"$summary"
    else
        echo "   ${red}$got, and should be $2${plain} (exit code $3)"
        echo "WRONG $title: $1: $got instead of $2 (exit code $3)" >>"$summary"
        wrong=$((wrong + 1))
    fi
}

# attempt allowed|denied WHAT COMMAND...
attempt() {
    expected=$1
    what=$2
    shift 2
    alerts_before=$(wc -l <"$alerts")
    echo " ${dim}\$ podman $(show "$@")${plain}"
    podman "$@" >"$work/output" 2>&1
    code=$?
    indented "$work/output"
    judge "$what" "$expected" "$code"
}

# The command as one would type it, without what repeats in each.
show() {
    line=''
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_/.,:=@%+-]*) line="$line '$word'" ;;
            *) line="$line $word" ;;
        esac
    done
    printf '%s' "${line# }" | sed "s#$work/##g"
}

# The alert of what was just denied: the first line after those that were there before.
alert() {
    tries=0
    while [ "$(wc -l <"$alerts")" -le "$alerts_before" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
            echo "   ${red}no alert came${plain}"
            echo "WRONG $title: no alert came" >>"$summary"
            wrong=$((wrong + 1))
            return
        fi
        sleep 0.1
    done
    echo " ${dim}\$ portcullis events${plain}"
    sed -n "$((alerts_before + 1))p" "$alerts" | indented
}

explain() {
    echo " ${dim}\$ portcullis policy explain $*${plain}"
    portcullis policy explain --policy "$policy" "$@" | indented
}

# --- the stories ---

tell_token() {
    story 1 'A service account token for one program only' service-account-token.yaml
    token=/run/secrets/kubernetes.io/serviceaccount/token
    set -- run --rm --network none --label app=payments -v "$work/token:${token%/*}:ro" debian
    attempt allowed 'the application reads the token' "$@" base64 "$token"
    attempt denied 'cat reads the token' "$@" cat "$token"
    alert
    explain read "$token" --from /usr/bin/cat --label app=payments
}

tell_exec_from_tmp() {
    story 2 'Nothing is executed from /tmp' no-exec-from-tmp.yaml
    set -- run --rm --network none --label app=worker busybox sh -c
    attempt allowed 'a program of the image runs' "$@" 'cp /bin/busybox /tmp/busybox-payload && ls /tmp'
    attempt denied 'a downloaded program runs' "$@" 'cp /bin/busybox /tmp/busybox-payload && /tmp/busybox-payload echo pwned'
    alert
    explain exec /tmp/busybox-payload --label app=worker
}

tell_system_directories() {
    story 3 'System programs are never replaced' system-directories-read-only.yaml
    set -- run --rm --network none --label app=worker busybox sh -c
    attempt allowed 'a file of the application is written' "$@" 'echo data >/home/user/file && cat /home/user/file'
    attempt denied 'a program is planted in /usr/bin' "$@" 'echo evil >/usr/bin/ps'
    alert
    explain change /usr/bin/ps --label app=worker
}

tell_package_managers() {
    story 4 'No package manager, no miner: not even as the entrypoint' no-package-managers-no-miners.yaml
    set -- run --rm --network none --label app=builder debian
    attempt allowed 'the compiler runs' "$@" gcc --version
    attempt denied 'apt-get is the first thing that runs' "$@" apt-get --version
    alert
    explain exec /usr/bin/apt-get --label app=builder
}

tell_web_server() {
    story 5 'A web server with a list of what it may do' web-server.yaml
    attempt allowed 'the server starts' run -d --name demo-web --network none --label app=web \
        --annotation kubearmor-file-posture=block --annotation kubearmor-network-posture=block \
        busybox httpd -f -p 8080 -h /var/www
    attempt allowed 'the server serves a page over TCP' exec demo-web \
        sh -c 'for i in 1 2 3 4 5 6 7 8 9; do wget -q -O- http://127.0.0.1:8080/ && exit 0; sleep 1; done; exit 1'
    attempt denied 'someone in the container reads /etc/shadow' exec demo-web cat /etc/shadow
    alert
    set -- --label app=web --annotation kubearmor-file-posture=block --annotation kubearmor-network-posture=block
    explain read /etc/shadow --from /bin/busybox "$@"
    attempt denied 'someone opens a UDP socket (ifconfig does)' exec demo-web ifconfig lo
    alert
    explain socket udp --from /bin/busybox "$@"
    echo " ${dim}\$ portcullis who demo-web${plain}"
    portcullis who demo-web | indented
}

echo "${bold}Portcullis${plain} on $(uname -r), $(command podman --version)"
set_up
tell_token
tell_exec_from_tmp
tell_system_directories
tell_package_managers
tell_web_server
echo
echo "${bold}portcullis status${plain}"
portcullis status | indented
echo
cat "$summary"
if [ "$wrong" -eq 0 ]; then
    echo "${green}all outcomes are what the policies say${plain}"
else
    echo "${red}$wrong outcomes differ${plain}"
    exit 1
fi
