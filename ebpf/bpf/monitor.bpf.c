// SPDX-License-Identifier: GPL-2.0-only
/*
 * The monitor: tells what processes do, and decides nothing. An object of its own, so that it works where enforcement can't be
 * loaded, and comes and goes without touching what is in force.
 */
#include "monitor_process.h"
#include "monitor_file.h"
#include "monitor_network.h"
#include "monitor_capability.h"

char LICENSE[] SEC("license") = "GPL";
