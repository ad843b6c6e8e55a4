//! A plugin that logs what happens, and changes nothing. A plugin of your own can start from it.
//!
//!     cargo run --example logger -- --index 10 --socket /var/run/nri/nri.sock
//!
//! As a plugin that the runtime starts, copy the binary to /opt/nri/plugins/10-logger; its file of settings is then
//! /etc/nri/conf.d/10-logger.conf, one setting a line:
//!
//!     annotate=KEY=VALUE     set an annotation of each new container
//!     delay=MILLISECONDS     take so long for each new container
//!
//! Outside a runtime the same settings are options: `--annotate KEY=VALUE`, `--delay 100`; and `--late` lets handlers answer
//! when it is too late, to see what a runtime does then.

use std::process::ExitCode;
use std::sync::RwLock;
use std::time::Duration;

use nri::proto::{Container, ContainerAdjustment, ContainerUpdate, LinuxResources, PodSandbox};
use nri::{Answer, Code, Configuration, ConnectionState, Context, Creation, Disconnect, Events, Failure, Plugin, Stub};

#[derive(Debug, Clone, Default)]
struct Settings {
    annotate: Option<(String, String)>,
    delay: Duration,
    late: bool,
}

impl Settings {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "annotate" => {
                let (key, value) = value.split_once('=').ok_or("annotate needs KEY=VALUE")?;
                self.annotate = Some((key.to_owned(), value.to_owned()));
            }
            "delay" => {
                let milliseconds = value.parse().map_err(|_| "delay needs a number of milliseconds")?;
                self.delay = Duration::from_millis(milliseconds);
            }
            "late" => self.late = true,
            _ => return Err(format!("unknown setting {key:?}; there are annotate, delay and late")),
        }
        Ok(())
    }
}

struct Logger {
    settings: RwLock<Settings>,
}

impl Logger {
    fn settings(&self) -> Settings {
        self.settings.read().map(|settings| settings.clone()).unwrap_or_default()
    }
}

fn log_container(cx: &Context, pod: &PodSandbox, container: &Container) {
    let pid = container.pid;
    println!("{} {}/{}/{} {} pid {pid}", cx.method, pod.namespace, pod.name, container.name, container.id);
}

fn log_pod(cx: &Context, pod: &PodSandbox) {
    println!("{} {}/{} {}", cx.method, pod.namespace, pod.name, pod.id);
}

impl Plugin for Logger {
    fn events(&self) -> Events {
        Events::ALL.without(Events::VALIDATE_CONTAINER_ADJUSTMENT)
    }

    async fn configure(&self, _: &Context, configuration: Configuration) -> Answer<()> {
        println!("Configure {}", configuration.runtime);
        if !configuration.unavailable.is_empty() {
            println!("this runtime does not have: {}", configuration.unavailable);
        }
        let mut settings = self.settings();
        for line in configuration.config.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            settings.set(key, value).map_err(|text| Failure::new(Code::InvalidArgument, text))?;
        }
        if let Ok(mut current) = self.settings.write() {
            *current = settings;
        }
        Ok(())
    }

    async fn synchronize(&self, _: &Context, pods: Vec<PodSandbox>, containers: Vec<Container>) -> Answer<Vec<ContainerUpdate>> {
        println!("Synchronize {} pods, {} containers", pods.len(), containers.len());
        Ok(Vec::new())
    }

    async fn create_container(&self, cx: &Context, pod: PodSandbox, container: Container) -> Answer<Creation> {
        log_container(cx, &pod, &container);
        let settings = self.settings();
        tokio::time::sleep(settings.delay).await;
        let mut adjust = ContainerAdjustment::default();
        if let Some((key, value)) = settings.annotate {
            adjust.set_annotation(key, value);
        }
        Ok(adjust.into())
    }

    async fn run_pod_sandbox(&self, cx: &Context, pod: PodSandbox) -> Answer<()> {
        log_pod(cx, &pod);
        Ok(())
    }

    async fn stop_pod_sandbox(&self, cx: &Context, pod: PodSandbox) -> Answer<()> {
        log_pod(cx, &pod);
        Ok(())
    }

    async fn remove_pod_sandbox(&self, cx: &Context, pod: PodSandbox) -> Answer<()> {
        log_pod(cx, &pod);
        Ok(())
    }

    async fn post_create_container(&self, cx: &Context, pod: PodSandbox, container: Container) -> Answer<()> {
        log_container(cx, &pod, &container);
        Ok(())
    }

    async fn start_container(&self, cx: &Context, pod: PodSandbox, container: Container) -> Answer<()> {
        log_container(cx, &pod, &container);
        Ok(())
    }

    async fn post_start_container(&self, cx: &Context, pod: PodSandbox, container: Container) -> Answer<()> {
        log_container(cx, &pod, &container);
        Ok(())
    }

    async fn update_container(
        &self,
        cx: &Context,
        pod: PodSandbox,
        container: Container,
        _: LinuxResources,
    ) -> Answer<Vec<ContainerUpdate>> {
        log_container(cx, &pod, &container);
        Ok(Vec::new())
    }

    async fn stop_container(&self, cx: &Context, pod: PodSandbox, container: Container) -> Answer<Vec<ContainerUpdate>> {
        log_container(cx, &pod, &container);
        Ok(Vec::new())
    }

    async fn remove_container(&self, cx: &Context, pod: PodSandbox, container: Container) -> Answer<()> {
        log_container(cx, &pod, &container);
        Ok(())
    }

    async fn closed(&self, reason: &Disconnect) {
        println!("closed: {reason}");
    }
}

fn log_state(state: &ConnectionState) {
    match state {
        ConnectionState::Synchronized(session) => println!("ready for {}", session.subscribed),
        ConnectionState::Disconnected { reason, retry_in: Some(wait) } => {
            println!("not connected: {reason}; next attempt within {} ms", wait.as_millis());
        }
        _ => {}
    }
}

fn run() -> Result<(), String> {
    let mut settings = Settings::default();
    let (mut name, mut index, mut socket) = ("logger".to_owned(), "10".to_owned(), nri::DEFAULT_SOCKET.to_owned());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let key = arg.strip_prefix("--").ok_or_else(|| format!("unexpected argument {arg:?}"))?;
        let value = if key == "late" { String::new() } else { args.next().ok_or_else(|| format!("{arg} needs a value"))? };
        match key {
            "name" => name = value,
            "index" => index = value,
            "socket" => socket = value,
            _ => settings.set(key, &value)?,
        }
    }
    let late = settings.late;
    let mut builder = Stub::builder(Logger { settings: RwLock::new(settings) })
        .name(name)
        .index(index)
        .socket(socket)
        .on_state_change(log_state);
    if late {
        builder = builder.answer_late();
    }
    let stub = builder.build().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let stop = async {
        let terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        match terminated {
            Ok(mut terminated) => tokio::select! {
                _ = terminated.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            },
            Err(_) => std::future::pending().await,
        }
    };
    runtime.map_err(|error| error.to_string())?.block_on(stub.run(stop)).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("logger: {error}");
            ExitCode::FAILURE
        }
    }
}
