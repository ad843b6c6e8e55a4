//! What of OCSF an operation is: a class of events and an activity of that class.

/// A class of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// What no class of OCSF is for.
    Base,
    File,
    Kernel,
    Module,
    Process,
    Network,
}

impl Class {
    pub(super) fn uid(self) -> u32 {
        match self {
            Class::Base => 0,
            Class::File => 1001,
            Class::Kernel => 1003,
            Class::Module => 1005,
            Class::Process => 1007,
            Class::Network => 4001,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Class::Base => "Base Event",
            Class::File => "File System Activity",
            Class::Kernel => "Kernel Activity",
            Class::Module => "Module Activity",
            Class::Process => "Process Activity",
            Class::Network => "Network Activity",
        }
    }

    /// Number and name of the category that the class is in.
    pub(super) fn category(self) -> (u32, &'static str) {
        match self {
            Class::Base => (0, "Uncategorized"),
            Class::File | Class::Kernel | Class::Module | Class::Process => (1, "System Activity"),
            Class::Network => (4, "Network Activity"),
        }
    }
}

/// An activity of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Activity {
    pub(super) class: Class,
    pub(super) id: u32,
    /// OCSF's name of it; where it has none (`id` is [`OTHER`]), our own name of the operation, as OCSF wants it.
    pub(super) name: &'static str,
}

/// The activity that OCSF has no number for.
pub(super) const OTHER: u32 = 99;

/// The activity that an operation of a class of ours is.
pub(super) fn activity(class: &'static str, operation: &'static str) -> Activity {
    let (of, (id, name)) = match class {
        "file" => (Class::File, file(operation)),
        // Memory of a file that is made executable, as libraries are.
        "process" if operation == "map_exec" => (Class::Module, (1, "Load")),
        "process" => (Class::Process, if operation == "exec" { (1, "Launch") } else { (OTHER, operation) }),
        "network" => (Class::Network, network(operation)),
        // A privilege of the kernel's that is asked for, or a call that would undo the enforcement.
        "capability" | "syscall" | "self-protection" => (Class::Kernel, (4, "Invoke")),
        "mount" => (Class::File, mount(operation)),
        _ => (Class::Base, (OTHER, operation)),
    };
    Activity { class: of, id, name }
}

fn file(operation: &'static str) -> (u32, &'static str) {
    match operation {
        "create" | "mkdir" | "mknod" | "link" | "symlink" => (1, "Create"),
        "read" => (2, "Read"),
        "write" | "truncate" => (3, "Update"),
        "unlink" | "rmdir" => (4, "Delete"),
        "rename" => (5, "Rename"),
        "setattr" | "setxattr" => (6, "Set Attributes"),
        "chmod" | "chown" => (7, "Set Security"),
        // A descriptor comes from another process.
        "open" | "receive" => (14, "Open"),
        _ => (OTHER, operation),
    }
}

fn mount(operation: &'static str) -> (u32, &'static str) {
    match operation {
        "mount" | "move_mount" => (12, "Mount"),
        "umount" => (13, "Unmount"),
        _ => (OTHER, operation),
    }
}

fn network(operation: &'static str) -> (u32, &'static str) {
    match operation {
        "connect" | "accept" => (1, "Open"),
        "send" => (6, "Traffic"),
        "listen" => (7, "Listen"),
        // A socket that nothing has come through yet.
        _ => (OTHER, operation),
    }
}
