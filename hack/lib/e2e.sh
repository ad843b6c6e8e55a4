# Running the end-to-end tests in a guest.
# shellcheck shell=bash
# shellcheck disable=SC2034 # the scripts that read this file use it

# The boot line of a kernel that does not run BPF LSM, for the suite "apparmor".
WITHOUT_BPF='lsm=landlock,lockdown,yama,apparmor'

# run_e2e DIST KERNEL TIMEOUT [ARGUMENT OF portcullis-e2e]...
# With E2E_APPEND on the guest's boot line, where that is set.
# DIST is what hack/build --tests made. The image's own disk holds the work directory: /tmp is a tmpfs, which has no
# file handles and no reflinks, so it would hide what the tests look for.
run_e2e() {
    local dist=$1 kernel=$2 timeout=$3
    shift 3
    "$HERE/vm" run "$kernel" --share "$dist:/portcullis" --timeout "$timeout" --memory 3072 --env RUST_BACKTRACE=1 \
        ${E2E_APPEND:+--append "$E2E_APPEND"} \
        -- /portcullis/portcullis-e2e "$@"
}
