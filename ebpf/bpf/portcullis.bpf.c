// SPDX-License-Identifier: GPL-2.0-only
/* The kernel part of Portcullis. One object; each family of hooks is a header that says what it decides and which bypass it closes. */
#include "hooks_adopt.h"
#include "hooks_exec.h"
#include "hooks_file.h"
#include "hooks_guard.h"
#include "hooks_mount.h"
#include "hooks_net.h"
#include "hooks_syscall.h"

char LICENSE[] SEC("license") = "GPL";
