//! A sample as OpenMetrics: every name, its unit and its meaning.

use std::fmt;
use std::path::Path;

use portcullis_nri_plugin::Link;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::Sample;
use crate::control::{ConnectionStatus, VerdictCounts};

/// The sample as the text of a scrape.
pub(super) fn text(sample: &Sample) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Once(sample.clone())));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Once(Sample);

impl Collector for Once {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder };
        self.policies(&mut page)?;
        self.containers(&mut page)?;
        self.alerts(&mut page)?;
        self.kernel(&mut page)?;
        self.monitor(&mut page)?;
        self.accesses(&mut page)?;
        self.runtimes(&mut page)?;
        self.process(&mut page)
    }
}

impl Once {
    fn policies(&self, page: &mut Page<'_>) -> fmt::Result {
        let policies = &self.0.agent.policies;
        page.gauge("portcullis_policies", "Policies in force", policies.count as u64)?;
        page.gauge("portcullis_policy_problems", "Things wrong with policy files", policies.problems as u64)?;
        page.counter("portcullis_policy_reads", "How often policies were read", policies.generation)?;
        page.gauge(
            "portcullis_policies_unreadable",
            "1 where the policies could not be read the last time; those that were read before are in force",
            u64::from(policies.unreadable.is_some()),
        )
    }

    fn containers(&self, page: &mut Page<'_>) -> fmt::Result {
        let containers = &self.0.agent.containers;
        page.gauge("portcullis_containers", "Containers that doors have let in and that are not gone", containers.known as u64)?;
        page.gauge("portcullis_containers_leaving", "Stopped containers with tasks left", containers.leaving as u64)?;
        page.gauge(
            "portcullis_containers_not_up_to_date",
            "Containers whose policies changed and could not be brought to them",
            containers.troubles.len() as u64,
        )
    }

    fn alerts(&self, page: &mut Page<'_>) -> fmt::Result {
        let alerts = &self.0.agent.alerts;
        page.counter("portcullis_alerts", "Alerts that came to the agent", alerts.alerts)?;
        page.gauge("portcullis_alert_readers", "Those who follow alerts", alerts.readers)?;
        page.gauge("portcullis_alerts_waiting", "Alerts that wait for somebody to follow", alerts.waiting)?;
        page.counter("portcullis_alerts_unread", "Alerts that a reader did not get, counted for each reader", alerts.lost)?;
        page.gauge("portcullis_alerts_read", "1 where the agent reads the kernel's alerts", u64::from(alerts.trouble.is_none()))
    }

    fn kernel(&self, page: &mut Page<'_>) -> fmt::Result {
        let kernel = &self.0.kernel;
        page.gauge("portcullis_kernel_loaded", "1 where the kernel programs are in force", u64::from(kernel.is_some()))?;
        let Some(kernel) = kernel else { return Ok(()) };
        page.gauge("portcullis_kernel_programs", "Kernel programs in force", kernel.programs)?;
        page.bytes("portcullis_kernel_memory", "Kernel memory of programs and maps", kernel.memory_bytes)?;
        let counts = &kernel.counts;
        page.family(
            Kind::Counter,
            "portcullis_decisions",
            "Operations denied or audited",
            "verdict",
            &[("block", counts.blocked), ("audit", counts.audited)],
        )?;
        page.counter("portcullis_kernel_alerts", "Alerts that the kernel raised", counts.seq)?;
        page.counter("portcullis_kernel_alerts_lost", "Alerts that found no room on their way from the kernel", counts.lost)?;
        page.counter(
            "portcullis_kernel_alerts_repeated",
            "Audited system calls that were counted and raised no alert: the same was told a moment before",
            counts.repeated,
        )?;
        page.counter(
            "portcullis_kernel_syscalls_missed",
            "System calls of the host, of anybody, that the kernel skipped the look at while rules name some",
            kernel.missed,
        )?;
        page.counter(
            "portcullis_unresolved_paths",
            "Paths that could not be told; rules that deny, deny them",
            counts.unresolved,
        )?;
        page.counter(
            "portcullis_denied_for_want_of_memory",
            "Operations denied because no working memory was free",
            counts.busy,
        )?;
        page.counter("portcullis_repeated_walks", "Paths read again because a rename or a mount came between", counts.torn)
    }

    fn monitor(&self, page: &mut Page<'_>) -> fmt::Result {
        let (monitor, logs) = (&self.0.agent.monitor, &self.0.agent.logs);
        page.gauge("portcullis_monitor_loaded", "1 where the monitor of processes is loaded", u64::from(monitor.loaded))?;
        page.counter("portcullis_monitor_events", "Events of processes that the monitor raised", monitor.events)?;
        page.counter("portcullis_monitor_events_lost", "Those of them that found no room", monitor.lost)?;
        page.counter("portcullis_monitor_events_missed", "Events that the kernel skipped the monitor for", monitor.missed)?;
        page.gauge("portcullis_monitor_processes", "Processes that are known", monitor.processes as u64)?;
        page.counter("portcullis_monitor_processes_evicted", "Processes that were forgotten for want of room", monitor.evicted)?;
        page.counter("portcullis_logs", "Programs that were started, told by the agent as events", logs.logs)?;
        page.counter("portcullis_logs_unread", "Those that a reader did not get, counted for each reader", logs.lost)
    }

    fn accesses(&self, page: &mut Page<'_>) -> fmt::Result {
        let accesses = &self.0.agent.accesses;
        let help = "Accesses that came to the agent: files, sockets, capabilities";
        let mut family = page.open(Kind::Counter, "portcullis_accesses", help, None)?;
        let classes = [("file", accesses.file), ("network", accesses.network), ("capability", accesses.capability)];
        for (class, VerdictCounts { passed, denied }) in classes {
            for (verdict, count) in [("passed", passed), ("denied", denied)] {
                let labels = [("class", class), ("verdict", verdict)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        page.counter("portcullis_accesses_lost", "Accesses that found no room on their way from the kernel", accesses.lost)?;
        page.counter("portcullis_accesses_aggregated", "Accesses that the kernel only counted, as repeats", accesses.aggregated)?;
        page.counter(
            "portcullis_accesses_unread",
            "Lines about accesses that a reader did not get, counted for each reader",
            accesses.unread,
        )
    }

    fn runtimes(&self, page: &mut Page<'_>) -> fmt::Result {
        let connections = &self.0.agent.nri.connections;
        let mut family =
            page.open(Kind::Gauge, "portcullis_nri_connected", "1 where the runtime at the socket is connected", None)?;
        for connection in connections {
            let socket = socket(connection);
            let up = u64::from(connection.link == Link::Up);
            ConstGauge::new(up).encode(family.encode_family(&[("socket", socket.as_str())])?)?;
        }
        let help =
            "Containers that came by the socket: created, of which gated by the hook; refused; let through without protection";
        let mut family = page.open(Kind::Counter, "portcullis_nri_containers", help, None)?;
        for connection in connections {
            let (socket, counts) = (socket(connection), &connection.counts);
            for (outcome, count) in [
                ("created", counts.created),
                ("gated", counts.gated),
                ("refused", counts.refused),
                ("unprotected", counts.permitted),
            ] {
                let labels = [("socket", socket.as_str()), ("outcome", outcome)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let (agent, process) = (&self.0.agent, &self.0.process);
        let mut info = page.open(Kind::Gauge, "portcullis_build_info", "The agent's version", None)?;
        ConstGauge::new(1u64).encode(info.encode_family(&[("version", agent.version.as_str())])?)?;
        let help = "Processor time of the agent, user and system";
        let cpu = page.open(Kind::Counter, "process_cpu", help, Some(&Unit::Seconds))?;
        ConstCounter::new(process.cpu_seconds).encode(cpu)?;
        page.bytes("process_resident_memory", "Memory of the agent", process.resident_bytes)?;
        let help = "When the agent was started, since 1970";
        let started = page.open(Kind::Gauge, "process_start_time", help, Some(&Unit::Seconds))?;
        ConstGauge::new(agent.started_at).encode(started)?;
        page.gauge("process_open_fds", "Files that the agent has open", process.open_fds)
    }
}

/// What stands for a runtime.
fn socket(connection: &ConnectionStatus) -> String {
    connection.socket.as_deref().map_or("started-by-runtime".into(), Path::to_string_lossy).into_owned()
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// Where metrics are written. A counter's name gets `_total`, one with a unit gets the unit.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    fn open<'s>(
        &'s mut self,
        kind: Kind,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        let kind = match kind {
            Kind::Counter => ConstCounter::<u64>::new(0).metric_type(),
            Kind::Gauge => ConstGauge::<u64>::new(0).metric_type(),
        };
        self.encoder.encode_descriptor(name, help, unit, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.open(Kind::Gauge, name, help, None)?)
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.open(Kind::Gauge, name, help, Some(&Unit::Bytes))?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.open(Kind::Counter, name, help, None)?)
    }

    fn family(&mut self, kind: Kind, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let mut family = self.open(kind, name, help, None)?;
        for (value, count) in values {
            ConstCounter::new(*count).encode(family.encode_family(&[(label, *value)])?)?;
        }
        Ok(())
    }
}
