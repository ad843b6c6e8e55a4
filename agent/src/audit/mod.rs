//! Denials of AppArmor, from the kernel's audit records, as the events that the kernel programs would have raised.
//!
//! AppArmor tells its verdicts to the audit subsystem and to nobody else. That passes every record on to a multicast group, which
//! any number of readers may join beside auditd (`kauditd_send_multicast_skb` in the kernel's `kernel/audit.c`). A record says which
//! profile decided, and so which container; which rule it was the reference model says, which the profile was made from. What was
//! refused before the kernel could judge it is told in the same form by who refused it (`Refusals` in the enforcer).

mod reader;
mod record;
mod socket;

pub(crate) use reader::Denials;
