//! The agent's part of `portcullis status`.

use portcullis_agent::control::{
    AccessesStatus, AgentStatus, ConnectionStatus, Link, LogsStatus, MonitorStatus, SinkStatus, UntoldVisibility,
    VisibilityStatus,
};

use crate::failure::Failure;
use crate::output::{self, printable};

/// Whether it does all that it has to.
pub(crate) fn is_well(agent: &AgentStatus) -> bool {
    let connected = agent.nri.connections.iter().all(|connection| connection.link == Link::Up);
    let watched = agent.monitor.trouble.is_none() && agent.accesses.trouble.is_none() || !agent.monitor.required;
    let as_required = (connected || !agent.nri.required) && watched;
    let written = agent.sinks.iter().all(|sink| sink.trouble.is_none());
    agent.policies.unreadable.is_none() && agent.containers.troubles.is_empty() && as_required && written
}

pub(crate) fn show(agent: &AgentStatus) -> Result<(), Failure> {
    let (policies, containers, alerts) = (&agent.policies, &agent.containers, &agent.alerts);
    output::line(&format!(
        "agent {} (process {}): policies read {} times, {} containers known, {} leaving, alerts {} to {} readers",
        printable(&agent.version),
        agent.pid,
        policies.generation,
        containers.known,
        containers.leaving,
        alerts.alerts,
        alerts.readers
    ))?;
    agent.nri.connections.iter().try_for_each(|connection| show_connection(connection, agent.nri.required))?;
    if let Some(reason) = &policies.unreadable {
        output::line(&format!("NOT READ the policies are those of generation {}: {}", policies.generation, printable(reason)))?;
    }
    if alerts.lost > 0 {
        output::line(&format!("LOST {} alerts that were read too slowly, or by nobody", alerts.lost))?;
    }
    if let Some(reason) = &alerts.trouble {
        output::line(&format!("NOT READ alerts: {}", printable(reason)))?;
    }
    if let Some(reason) = &alerts.feeder_trouble {
        output::line(&format!("NOT SERVED alerts in KubeArmor's protocol: {}", printable(reason)))?;
    }
    if let Some(reason) = &agent.metrics_trouble {
        output::line(&format!("NOT SERVED metrics: {}", printable(reason)))?;
    }
    agent.sinks.iter().try_for_each(|sink| output::line(&sink_line(sink)))?;
    monitor_lines(&agent.monitor, &agent.logs).iter().try_for_each(|line| output::line(line))?;
    access_lines(&agent.accesses).iter().try_for_each(|line| output::line(line))?;
    visibility_lines(&agent.visibility).iter().try_for_each(|line| output::line(line))?;
    for trouble in &containers.troubles {
        output::line(&format!(
            "NOT UP TO DATE {} {} ({} attempts): {}",
            printable(&trouble.name),
            printable(&trouble.id),
            trouble.attempts,
            printable(&trouble.error)
        ))?;
    }
    Ok(())
}

fn sink_line(sink: &SinkStatus) -> String {
    let SinkStatus { sink, to, written, lost, trouble } = sink;
    let state = match trouble {
        None => String::new(),
        Some(reason) => format!("; NOT WRITTEN NOW: {reason}"),
    };
    printable(&format!("sink {sink} {to}: {written} events written, {lost} lost{state}"))
}

fn monitor_lines(monitor: &MonitorStatus, logs: &LogsStatus) -> Vec<String> {
    let MonitorStatus { events, lost, missed, processes, evicted, .. } = monitor;
    let mut lines = Vec::new();
    if monitor.loaded {
        lines.push(format!(
            "monitor: {events} events of processes, {lost} lost, {missed} missed; {processes} processes known, {evicted} forgotten for want of room; {} executions told to {} readers",
            logs.logs, logs.readers
        ));
    }
    match &monitor.trouble {
        Some(reason) if monitor.loaded => lines.push(format!("NOT READ events of processes: {}", printable(reason))),
        Some(reason) => {
            lines.push(format!(
                "NOT LOADED the monitor, so that alerts do not say what their processes run: {}",
                printable(reason)
            ));
        }
        None => {}
    }
    lines
}

fn access_lines(accesses: &AccessesStatus) -> Vec<String> {
    let AccessesStatus { wanted, trouble, file, network, capability, lost, aggregated, readers, .. } = accesses;
    let mut lines = Vec::new();
    if *wanted && trouble.is_none() {
        let [passed, denied] =
            [file.passed + network.passed + capability.passed, file.denied + network.denied + capability.denied];
        lines.push(format!(
            "accesses: {passed} passed and {denied} denied, {lost} lost, {aggregated} counted as repeats; told to {readers} readers"
        ));
    }
    lines.extend(trouble.as_ref().map(|reason| format!("NOT TOLD accesses: {}", printable(reason))));
    lines
}

fn visibility_lines(visibility: &VisibilityStatus) -> Vec<String> {
    let VisibilityStatus { process, file, network, capabilities, own, left_out, untold, trouble } = visibility;
    let mut lines = Vec::new();
    if *own > 0 {
        lines.push(format!(
            "told of containers: process of {process}, file of {file}, network of {network}, capabilities of {capabilities}; {own} say so themselves"
        ));
    }
    if *left_out > 0 {
        lines.push(format!(
            "NOT AS ASKED FOR the accesses of {left_out} of them: the kernel has no room, and tells of them as of others"
        ));
    }
    lines.extend(trouble.as_ref().map(|reason| format!("NOT AS ASKED FOR what is told of containers: {}", printable(reason))));
    lines.extend(untold.iter().map(|UntoldVisibility { id, name, why }| {
        format!("NOT TOLD of {} {}: {}", printable(name), printable(id), printable(why))
    }));
    lines
}

fn show_connection(connection: &ConnectionStatus, required: bool) -> Result<(), Failure> {
    let socket =
        connection.socket.as_ref().map_or_else(|| "started by the runtime".to_owned(), |path| path.display().to_string());
    let runtime = connection.runtime.as_deref().unwrap_or_default();
    let counts = &connection.counts;
    let text = match (connection.link, &connection.trouble) {
        (Link::Up, _) => format!(
            "{socket}: {runtime}; {} containers created, {} gated, {} refused, {} let through without protection",
            counts.created, counts.gated, counts.refused, counts.permitted
        ),
        // No runtime there, and none was asked for.
        (Link::Down, Some(_)) if !required && runtime.is_empty() => format!("{socket}: nobody listens there"),
        (_, Some(trouble)) => format!("{socket}: NOT CONNECTED: {trouble}"),
        (_, None) => format!("{socket}: connecting"),
    };
    output::line(&format!("  nri {}", printable(&text)))
}

#[cfg(test)]
mod tests {
    use portcullis_agent::control::VerdictCounts;

    use super::*;

    fn agent(required: bool, trouble: Option<&str>) -> AgentStatus {
        let monitor =
            MonitorStatus { required, loaded: trouble.is_none(), trouble: trouble.map(str::to_owned), ..Default::default() };
        AgentStatus {
            version: String::new(),
            pid: 1,
            started_at: 0,
            policies: Default::default(),
            containers: Default::default(),
            nri: Default::default(),
            metrics_trouble: None,
            alerts: Default::default(),
            monitor,
            logs: Default::default(),
            accesses: Default::default(),
            visibility: Default::default(),
            sinks: Vec::new(),
        }
    }

    #[test]
    fn a_monitor_that_is_not_there_is_trouble_where_it_is_required() {
        assert!(is_well(&agent(false, Some("no BTF"))) && is_well(&agent(true, None)));
        assert!(!is_well(&agent(true, Some("no BTF"))));
        let mut without_accesses = agent(true, None);
        without_accesses.accesses.trouble = Some("no trampolines".to_owned());
        assert!(!is_well(&without_accesses));
    }

    #[test]
    fn accesses_are_told_where_they_are_wanted() {
        assert_eq!(access_lines(&AccessesStatus::default()), [""; 0]);
        let counts = |passed, denied| VerdictCounts { passed, denied };
        let (file, network, capability) = (counts(1, 2), counts(3, 4), counts(5, 6));
        let wanted =
            AccessesStatus { wanted: true, file, network, capability, lost: 7, aggregated: 8, readers: 1, ..Default::default() };
        let told = "accesses: 9 passed and 12 denied, 7 lost, 8 counted as repeats; told to 1 readers";
        assert_eq!(access_lines(&wanted), [told]);
        let refused = access_lines(&AccessesStatus { trouble: Some("no\n".to_owned()), ..wanted });
        assert_eq!(refused, ["NOT TOLD accesses: no\\n"]);
    }

    #[test]
    fn what_containers_ask_for_is_counted_and_what_is_not_told_is_said() {
        assert_eq!(
            visibility_lines(&VisibilityStatus { process: 9, ..Default::default() }),
            [""; 0],
            "as the configuration says"
        );
        let untold = UntoldVisibility { id: "c1".to_owned(), name: "web\n".to_owned(), why: "it has \"dns\"".to_owned() };
        let status = VisibilityStatus { process: 9, file: 2, own: 3, left_out: 1, untold: vec![untold], ..Default::default() };
        let lines = visibility_lines(&status);
        assert_eq!(lines[0], "told of containers: process of 9, file of 2, network of 0, capabilities of 0; 3 say so themselves");
        assert!(lines[1].starts_with("NOT AS ASKED FOR the accesses of 1 of them"), "{lines:?}");
        assert_eq!((lines.len(), lines[2].as_str()), (3, "NOT TOLD of web\\n c1: it has \"dns\""));
    }

    #[test]
    fn a_sink_that_cannot_write_is_trouble_and_says_why() {
        let mut well = agent(false, None);
        let sink = SinkStatus { sink: "file".to_owned(), to: "/e".to_owned(), written: 4, lost: 1, trouble: None };
        assert_eq!(sink_line(&sink), "sink file /e: 4 events written, 1 lost");
        well.sinks = vec![sink.clone()];
        assert!(is_well(&well));
        let full = SinkStatus { trouble: Some("no space\n".to_owned()), ..sink };
        assert_eq!(sink_line(&full), "sink file /e: 4 events written, 1 lost; NOT WRITTEN NOW: no space\\n");
        well.sinks = vec![full];
        assert!(!is_well(&well));
    }

    #[test]
    fn the_monitor_is_told_with_what_it_lost_or_why_it_is_not_there() {
        let lines = |monitor: MonitorStatus| monitor_lines(&monitor, &LogsStatus { logs: 5, readers: 1, ..Default::default() });
        let up = MonitorStatus { loaded: true, events: 9, lost: 2, missed: 1, processes: 40, evicted: 3, ..Default::default() };
        let told = "monitor: 9 events of processes, 2 lost, 1 missed; 40 processes known, 3 forgotten for want of room; 5 executions told to 1 readers";
        assert_eq!(lines(up.clone()), [told]);
        let taken = lines(MonitorStatus { trouble: Some("taken\n".to_owned()), ..up });
        assert_eq!(taken[1], "NOT READ events of processes: taken\\n");
        let refused = lines(MonitorStatus { trouble: Some("no BTF".to_owned()), ..Default::default() });
        assert_eq!(refused, ["NOT LOADED the monitor, so that alerts do not say what their processes run: no BTF"]);
        assert_eq!(lines(MonitorStatus::default()), [""; 0], "nobody wants one");
    }
}
