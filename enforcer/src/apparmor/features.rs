//! What the profiles are written for.

/// What the kernel must mediate, in the form of `/sys/kernel/security/apparmor/features`, which is how the parser is told.
///
/// Pinned, so that a text is compiled to the same bytes on every host, and each kernel that AppArmor matters on has all of it (5.10
/// and newer). What a newer kernel mediates beside it (user namespaces, `io_uring`, message queues) stays as it is under the engine's own
/// profile.
pub(super) const FEATURES: &str = "\
caps {mask {chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service \
net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice \
sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm \
block_suspend audit_read perfmon bpf checkpoint_restore\n}\n}\n\
domain {change_hat {yes\n}\nchange_onexec {yes\n}\nchange_profile {yes\n}\ncomputed_longest_left {yes\n}\n\
fix_binfmt_elf_mmap {yes\n}\npost_nnp_subset {yes\n}\nstack {yes\n}\nversion {1.2\n}\n}\n\
file {mask {create read write exec append mmap_exec link lock\n}\n}\n\
mount {mask {mount umount pivot_root\n}\n}\n\
network_v8 {af_mask {unspec unix inet ax25 ipx appletalk netrom bridge atmpvc x25 inet6 rose netbeui security key netlink packet ash \
econet atmsvc rds sna irda pppox wanpipe llc ib mpls can tipc bluetooth iucv rxrpc isdn phonet ieee802154 caif alg nfc vsock kcm \
qipcrtr smc xdp\n}\n}\n\
policy {set_load {yes\n}\nversions {v5 {yes\n}\nv6 {yes\n}\nv7 {yes\n}\nv8 {yes\n}\n}\n}\n\
ptrace {mask {read trace\n}\n}\n\
signal {mask {hup int quit ill trap abrt bus fpe kill usr1 segv usr2 pipe alrm term stkflt chld cont stop stp ttin ttou urg xcpu xfsz \
vtalrm prof winch io pwr sys emt lost\n}\n}\n";
