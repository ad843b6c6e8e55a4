//! Who did it, and to what.

use portcullis_policy::network::{AF_INET, AF_INET6};

use super::Told;
use super::activity::{Class, OTHER};
use super::schema::{Actor, Address, Connection, Container, Endpoint, File, Image, Kernel, Module, Process, Target, User};
use crate::alerts::Program;
use crate::alerts::line;

/// OCSF's types of files.
const UNKNOWN: u32 = 0;
const FOLDER: u32 = 2;
const SYMBOLIC_LINK: u32 = 7;
const EXECUTABLE: u32 = 8;
/// OCSF's type of a kernel's resource.
const SYSTEM_CALL: u32 = 2;

impl<'a> Told<'a> {
    /// Of a program that was started, the actor is who gave birth to its process.
    pub(super) fn actor_and_target(&self, class: Class) -> (Actor<'a>, Target<'a>) {
        let user = User { uid: self.process.uid.to_string() };
        let mut subject = self.subject();
        match self.object {
            None => {
                let process = subject.parent_process.take().map(|parent| *parent);
                (Actor { process, user }, launch(subject))
            }
            Some(object) => (Actor { process: Some(subject), user }, self.target(class, object)),
        }
    }

    fn subject(&self) -> Process<'a> {
        let line = self.process;
        let facts = line.facts;
        let program = facts.and_then(|facts| facts.program.as_deref());
        Process {
            pid: Some(line.pid),
            tid: Some(line.tid),
            namespace_pid: facts.and_then(|facts| facts.ns_pid),
            name: Some(&*line.comm).filter(|comm| !comm.is_empty()),
            uid: facts.and_then(|facts| facts.exec_id).map(|id| id.to_string()),
            cmd_line: program.and_then(Program::args).map(|args| args.collect::<Vec<_>>().join(" ")),
            working_directory: program.and_then(Program::named_cwd),
            file: program.and_then(Program::named_exe).map(|exe| file(exe, EXECUTABLE)),
            user: Some(User { uid: line.uid.to_string() }),
            container: self.container.map(container),
            parent_process: facts.and_then(|facts| facts.parent.as_ref()).map(|parent| {
                Box::new(Process {
                    pid: Some(parent.pid),
                    namespace_pid: parent.ns_pid,
                    file: parent.exe().map(|exe| file(exe, EXECUTABLE)),
                    ..Process::default()
                })
            }),
        }
    }

    fn target(&self, class: Class, object: &'a str) -> Target<'a> {
        match class {
            Class::Base => Target::Nothing {},
            Class::File => Target::File { file: file(object, file_type(self.operation)) },
            Class::Module => {
                Target::Module { module: Module { file: file(object, UNKNOWN), load_type_id: 4, load_type: "Mapped" } }
            }
            // The process that asks, and the program that it would become.
            Class::Process => {
                launch(Process { pid: Some(self.process.pid), file: Some(file(object, EXECUTABLE)), ..Process::default() })
            }
            Class::Kernel => {
                let (name, type_id, kind) = match self.class {
                    "capability" => (object, OTHER, "Capability"),
                    "syscall" => (self.operation, SYSTEM_CALL, "System Call"),
                    _ => (self.operation, OTHER, "Self-protection"),
                };
                Target::Kernel { kernel: Kernel { name, type_id, kind } }
            }
            Class::Network => {
                let (own, other) = self.addresses();
                Target::Network {
                    // Whoever has the socket.
                    src_endpoint: Endpoint {
                        hostname: &self.host.name,
                        uid: self.container.map_or("", |container| &container.id),
                        name: self.container.map_or("", |container| &container.name),
                        address: own,
                    },
                    dst_endpoint: other,
                    connection_info: connection(self.operation, self.socket),
                }
            }
        }
    }
}

impl Told<'_> {
    /// Which end an address is of: what is bound is the own one, and everything else speaks with another.
    fn addresses(&self) -> (Option<Address>, Option<Address>) {
        let address = self.address.map(|address| Address { ip: address.ip(), port: address.port() });
        if matches!(self.operation, "bind" | "listen") { (address, None) } else { (None, address) }
    }
}

fn launch(process: Process<'_>) -> Target<'_> {
    Target::Process { process: Box::new(process), launch_type_id: 3, launch_type: "Exec" }
}

fn container(container: &line::Container) -> Container<'_> {
    let image = Some(container.image.as_str()).filter(|image| !image.is_empty()).map(|uid| Image { uid });
    Container { uid: &container.id, name: &container.name, image }
}

/// A file by its path. Of `/` the name is the path.
fn file(path: &str, type_id: u32) -> File<'_> {
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path);
    File { name, path, type_id }
}

/// What kind of file an operation is about, as far as its name says that.
fn file_type(operation: &str) -> u32 {
    match operation {
        "mkdir" | "rmdir" => FOLDER,
        "symlink" => SYMBOLIC_LINK,
        _ => UNKNOWN,
    }
}

fn connection(operation: &str, socket: Option<[u32; 3]>) -> Connection {
    let (direction_id, direction) = match operation {
        "connect" | "send" => (2, "Outbound"),
        "accept" | "listen" => (1, "Inbound"),
        _ => (0, "Unknown"),
    };
    let [family, _, protocol] = socket.unwrap_or_default();
    let protocol_ver_id = match u16::try_from(family) {
        Ok(AF_INET) => Some(4),
        Ok(AF_INET6) => Some(6),
        _ => None,
    };
    // Only of IP do the numbers mean a protocol, and 0 leaves the choice to the kernel.
    let protocol_num = (protocol_ver_id.is_some() && protocol != 0).then_some(protocol);
    Connection { direction_id, direction, protocol_num, protocol_ver_id }
}
