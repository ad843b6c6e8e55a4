//! The process: what has to hold before, signals, and the service manager.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_enforcer::{Config, Enforcer, NriEnabled};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Error;
use crate::feeder::Messages;
use crate::instance::{Instance, check_mount_namespace};
use crate::kubearmor::Host;
use crate::service::{self, Service, Settings};
use crate::systemd::Notifier;
use crate::telemetry::Telemetry;

/// How the agent is to run.
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    /// The configuration file; the usual one if none is given.
    pub config: Option<PathBuf>,
    /// A runtime has started this process as its plugin.
    pub started_by_runtime: bool,
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// If it can't run here, or a runtime that started it has left.
pub fn run(options: &AgentOptions) -> Result<(), Error> {
    let messages = Messages::default();
    log_to(messages.clone());
    let config = Config::read(options.config.as_deref())?;
    check_mount_namespace(Path::new("/proc"))?;
    let enforcer = Arc::new(Enforcer::open(config)?);
    let _instance = Instance::claim(&enforcer.config().state_dir)?;
    enforcer.load()?;
    let runtime = service::runtime()?;
    let ended = runtime.block_on(serve(enforcer, options, messages));
    // A call that still blocks has nobody left to answer to.
    runtime.shutdown_background();
    ended
}

async fn serve(enforcer: Arc<Enforcer>, options: &AgentOptions, messages: Messages) -> Result<(), Error> {
    let handler = |kind, name| signal(kind).map_err(|source| Error::Thread { name, source });
    let mut hangup = handler(SignalKind::hangup(), "SIGHUP")?;
    let mut stops = [handler(SignalKind::terminate(), "SIGTERM")?, handler(SignalKind::interrupt(), "SIGINT")?];
    let notifier = Notifier::from_environment();
    let settings = settings(&enforcer, options.started_by_runtime);
    let monitor = enforcer.config().monitor.clone();
    let telemetry = Telemetry::from_kernel(enforcer.state().clone(), settings.host.clone(), monitor, enforcer.chosen().backend)?;
    let mut service = Service::start(enforcer, &settings, telemetry.clone(), messages).await?;
    info!(version = env!("CARGO_PKG_VERSION"), socket = %settings.control_socket.display(), "ready: {}", service.summary());
    notifier.ready(&service.summary());
    let mut watchdog = notifier.watchdog_period().map(tokio::time::interval);
    let ended = loop {
        tokio::select! {
            ended = service.ended() => break ended,
            () = any(&mut stops) => break Ok(()),
            _ = hangup.recv() => {
                notifier.reloading();
                service.reload().await;
                notifier.ready(&service.summary());
            }
            () = tick(watchdog.as_mut()) => {
                // Alive means: there is a thread for the next container, too.
                drop(tokio::task::spawn_blocking(|| ()).await);
                notifier.alive();
            }
        }
    };
    notifier.stopping();
    service.stop().await;
    telemetry.rest();
    ended
}

fn settings(enforcer: &Enforcer, started_by_runtime: bool) -> Settings {
    let config = enforcer.config();
    let nri = &config.nri;
    Settings {
        policy_dir: config.policy_dir.clone(),
        known_dir: enforcer.state().known_dir(),
        control_socket: config.control_socket(),
        feeder_socket: config.feeder_socket(),
        feeder_tcp: config.feeder.tcp.clone(),
        sinks: config.sinks.clone(),
        metrics_listen: config.metrics_listen,
        uid: rustix::process::geteuid().as_raw(),
        host: Host::this(&config.cluster_name),
        nri_sockets: if nri.enabled == NriEnabled::No { Vec::new() } else { nri.sockets.clone() },
        nri_required: nri.enabled == NriEnabled::Yes || started_by_runtime,
        gate_hook: nri.hook.clone(),
        started_by_runtime,
    }
}

async fn any([first, second]: &mut [Signal; 2]) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}

async fn tick(watchdog: Option<&mut tokio::time::Interval>) {
    match watchdog {
        Some(watchdog) => drop(watchdog.tick().await),
        None => std::future::pending().await,
    }
}

/// Talk goes to stderr, and to those who watch the agent's messages. The journal knows the time itself.
fn log_to(messages: Messages) {
    // The protocol crate warns of each attempt to connect; the connection's own state tells what matters of them.
    let levels = Targets::new().with_default(LevelFilter::INFO).with_target("nri", LevelFilter::ERROR);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    let to_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let registry = tracing_subscriber::registry().with(levels).with(messages);
    // Fails if somebody has set one already, whose log this then goes to.
    drop(if to_journal { registry.with(lines.without_time()).try_init() } else { registry.with(lines).try_init() });
}
