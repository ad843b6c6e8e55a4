# Messages of the scripts in hack/. Data goes to stdout; talk goes to stderr.
# shellcheck shell=bash

say() { printf '%s: %s\n' "${PROGRAM:-hack}" "$*" >&2; }

# die MESSAGE [EXIT_CODE]
die() {
    say "error: $1"
    exit "${2:-1}"
}

# Seconds since the epoch, for deadlines and for the times that are reported.
now() { printf '%(%s)T\n' -1; }

cache_dir() { printf '%s\n' "${PORTCULLIS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/portcullis}"; }

# with_lock NAME COMMAND...: one process at a time, across everything that shares the cache.
with_lock() {
    local lock fd
    lock="$(cache_dir)/locks/$1"
    shift
    mkdir -p "${lock%/*}"
    exec {fd}>"$lock"
    if ! flock --nonblock "$fd"; then
        say "waiting for another process that holds ${lock##*/}"
        flock "$fd"
    fi
    # Not `"$@" || ...`: that would switch off `set -e` inside. A failure ends the process, which frees the lock.
    "$@"
    exec {fd}>&-
}
