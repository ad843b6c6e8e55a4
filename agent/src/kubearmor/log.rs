//! An event that is no alert, as KubeArmor tells it.

use std::collections::BTreeMap;

use super::access::Told;
use super::convert::{command, directory, number, pod, seconds};
use super::message::{ExecEvent, Log};
use crate::alerts::{ParentFacts, ProcessFacts};
use crate::logs;

impl From<&logs::Log> for Log {
    fn from(log: &logs::Log) -> Log {
        let line = log.line();
        let unknown = ProcessFacts::default();
        let process = line.process.facts.unwrap_or(&unknown);
        let parent = process.parent.as_ref();
        let parent_exe = parent.and_then(ParentFacts::exe).unwrap_or_default();
        let exe = process.named_exe().unwrap_or_default();
        let (source, told) = match &line.access {
            Some(access) => (command(exe, process), Told::new(line.class, line.operation, access)),
            None => (parent_exe.to_owned(), execution(command(exe, process))),
        };
        let Told { operation, resource, data, mut event_data, result } = told;
        if line.lost_before > 0 {
            event_data.insert("LostBefore".to_owned(), line.lost_before.to_string());
        }
        let mut told = Log {
            timestamp: seconds(line.time),
            updated_time: line.time.to_string(),
            cluster_name: log.host().cluster.clone(),
            host_name: log.host().name.clone(),
            parent_process_name: parent_exe.to_owned(),
            process_name: exe.to_owned(),
            host_ppid: parent.map_or(0, |parent| number(parent.pid)),
            host_pid: number(line.process.pid),
            ppid: parent.and_then(|parent| parent.ns_pid).map_or(0, number),
            pid: process.ns_pid.map_or(0, number),
            uid: line.process.uid.cast_signed(),
            // As KubeArmor, which knows containers by their ids alone.
            r#type: if log.is_of_host() { "HostLog" } else { "ContainerLog" }.to_owned(),
            source,
            operation: operation.to_owned(),
            resource,
            data,
            event_data,
            result,
            cwd: process.named_cwd().map(directory).unwrap_or_default(),
            tty: process.tty().map(|tty| tty.to_string()).unwrap_or_default(),
            exec_event: Some(ExecEvent {
                exec_id: process.exec_id.map(|id| id.to_string()).unwrap_or_default(),
                executable_name: line.process.comm.to_string(),
            }),
            node_id: log.host().id.clone(),
            user_name: if log.is_of_host() { log.host().user(line.process.uid) } else { String::new() },
            ..Log::default()
        };
        if let Some(container) = line.container {
            told.container_id.clone_from(&container.id);
            told.container_name.clone_from(&container.name);
            told.container_image.clone_from(&container.image);
            told.labels.clone_from(&container.labels);
            (told.namespace_name, told.pod_name, told.owner) = pod(container);
        }
        told
    }
}

/// A program that was started.
fn execution(command: String) -> Told {
    Told {
        operation: "Process",
        resource: command,
        // One of two system calls; readers of this format look for this one.
        data: "syscall=SYS_EXECVE".to_owned(),
        event_data: BTreeMap::from([("Syscall".to_owned(), "SYS_EXECVE".to_owned())]),
        result: "Passed".to_owned(),
    }
}
