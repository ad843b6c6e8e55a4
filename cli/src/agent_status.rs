//! The agent's part of `portcullis status`.

use portcullis_agent::control::{AgentStatus, ConnectionStatus, Link};

use crate::failure::Failure;
use crate::output::{self, printable};

/// Whether it does all that it has to.
pub(crate) fn is_well(agent: &AgentStatus) -> bool {
    let connected = agent.nri.connections.iter().all(|connection| connection.link == Link::Up);
    agent.policies.unreadable.is_none() && agent.containers.troubles.is_empty() && (connected || !agent.nri.required)
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
