//! The calls of the Container Runtime Interface, as plain functions.

use std::path::PathBuf;
use std::time::Duration;

use prost::Message;

use super::api::{
    ContainerConfig, CreateRequest, Empty, ExecRequest, ExecResponse, Id, Image, ImageStatusRequest, ImageStatusResponse,
    ListPodsResponse, ListResponse, Listed, PodConfig, RunPodRequest, Status, StatusRequest, StatusResponse, StopRequest,
    VersionResponse,
};
use super::grpc;
use crate::{Failure, Result};

/// One call, under emulation. A start that waits for a hook of ours takes as long as that is given.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// A question that is answered from memory.
const QUESTION_LIMIT: Duration = Duration::from_secs(20);

/// Who answers.
#[derive(Debug, Clone)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    /// Of the runtime that listens at `socket`.
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    fn runtime<Q: Message, A: Message + Default>(&self, method: &str, request: &Q, limit: Duration) -> Result<A> {
        grpc::call(&self.socket, &format!("/runtime.v1.RuntimeService/{method}"), request, limit)
    }

    /// Name and version of the runtime.
    pub(super) fn version(&self) -> Result<(String, String)> {
        let answer: VersionResponse = self.runtime("Version", &Empty {}, QUESTION_LIMIT)?;
        Ok((answer.runtime_name, answer.runtime_version))
    }

    /// Whether the runtime has the image.
    pub(super) fn has_image(&self, name: &str) -> Result<bool> {
        let request = ImageStatusRequest { image: Some(Image { image: name.to_owned() }) };
        let answer: ImageStatusResponse =
            grpc::call(&self.socket, "/runtime.v1.ImageService/ImageStatus", &request, QUESTION_LIMIT)?;
        Ok(answer.image.is_some())
    }

    /// Starts a sandbox, and tells its id.
    pub(super) fn run_pod(&self, config: &PodConfig, handler: &str) -> Result<String> {
        let request = RunPodRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
        let answer: Id = self.runtime("RunPodSandbox", &request, CALL_LIMIT)?;
        Ok(answer.id)
    }

    /// Ends a sandbox and all that is in it, and removes it.
    pub(super) fn remove_pod(&self, id: &str) -> Result<()> {
        let request = Id { id: id.to_owned() };
        let _: Empty = self.runtime("StopPodSandbox", &request, CALL_LIMIT)?;
        let _: Empty = self.runtime("RemovePodSandbox", &request, CALL_LIMIT)?;
        Ok(())
    }

    /// The ids of all sandboxes.
    pub(super) fn pods(&self) -> Result<Vec<String>> {
        let answer: ListPodsResponse = self.runtime("ListPodSandbox", &Empty {}, QUESTION_LIMIT)?;
        Ok(answer.pods.into_iter().map(|pod| pod.id).collect())
    }

    /// Creates a container, and tells its id.
    pub(super) fn create(&self, pod: &str, pod_config: &PodConfig, config: &ContainerConfig) -> Result<String> {
        let request = CreateRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(pod_config.clone()),
        };
        let answer: Id = self.runtime("CreateContainer", &request, CALL_LIMIT)?;
        Ok(answer.id)
    }

    /// Starts what was created.
    pub(super) fn start(&self, id: &str) -> Result<()> {
        let _: Empty = self.runtime("StartContainer", &Id { id: id.to_owned() }, CALL_LIMIT)?;
        Ok(())
    }

    /// SIGTERM, and SIGKILL after `grace`.
    pub(super) fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let _: Empty = self.runtime("StopContainer", &StopRequest { container_id: id.to_owned(), timeout }, CALL_LIMIT)?;
        Ok(())
    }

    /// Removes what has ended.
    pub(super) fn remove(&self, id: &str) -> Result<()> {
        let _: Empty = self.runtime("RemoveContainer", &Id { id: id.to_owned() }, CALL_LIMIT)?;
        Ok(())
    }

    /// Where a container's life is.
    pub(super) fn status(&self, id: &str) -> Result<Status> {
        let request = StatusRequest { container_id: id.to_owned(), verbose: false };
        let answer: StatusResponse = self.runtime("ContainerStatus", &request, QUESTION_LIMIT)?;
        answer.status.ok_or_else(|| Failure::Answer { what: "ContainerStatus".to_owned(), text: String::new() })
    }

    /// The runtime's own facts of a container, as JSON; several times the work of a status.
    pub(super) fn facts(&self, id: &str) -> Result<String> {
        let request = StatusRequest { container_id: id.to_owned(), verbose: true };
        let mut answer: StatusResponse = self.runtime("ContainerStatus", &request, QUESTION_LIMIT)?;
        Ok(answer.info.remove("info").unwrap_or_default())
    }

    /// All containers.
    pub(super) fn containers(&self) -> Result<Vec<Listed>> {
        let answer: ListResponse = self.runtime("ListContainers", &Empty {}, QUESTION_LIMIT)?;
        Ok(answer.containers)
    }

    /// Runs a program in a container that runs.
    pub(super) fn exec(&self, id: &str, command: &[&str]) -> Result<ExecResponse> {
        let request = ExecRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: i64::try_from(CALL_LIMIT.as_secs()).unwrap_or(i64::MAX),
        };
        self.runtime("ExecSync", &request, CALL_LIMIT)
    }
}
