//! The events, as the runtime sends them.

use prost::Message;

use super::{FakeError, FakePlugin};
use crate::events::{Events, method_name};
use crate::plugin::{Creation, Verdict};
use crate::proto::{
    Container, ContainerUpdate, CreateContainerRequest, CreateContainerResponse, Empty, Event, LinuxResources, PodSandbox,
    StartContainerRequest, StateChangeEvent, StopContainerRequest, StopContainerResponse, UpdateContainerRequest,
    UpdateContainerResponse, UpdatePodSandboxRequest, ValidateContainerAdjustmentRequest, ValidateContainerAdjustmentResponse,
};

/// Asks for the method in the runtime's older dialect.
const UNIMPLEMENTED: i32 = 12;

/// All of these do nothing if the plugin has not subscribed to the event, and close the connection if it does not answer in
/// time.
impl FakePlugin {
    /// A pod's sandbox runs.
    pub async fn run_pod_sandbox(&self, pod: &PodSandbox) -> Result<(), FakeError> {
        self.lifecycle(Event::RunPodSandbox, pod, None).await
    }

    /// A pod has been stopped.
    pub async fn stop_pod_sandbox(&self, pod: &PodSandbox) -> Result<(), FakeError> {
        self.lifecycle(Event::StopPodSandbox, pod, None).await
    }

    /// A pod has been removed.
    pub async fn remove_pod_sandbox(&self, pod: &PodSandbox) -> Result<(), FakeError> {
        self.lifecycle(Event::RemovePodSandbox, pod, None).await
    }

    /// A pod's resources are about to change.
    pub async fn update_pod_sandbox(
        &self,
        pod: &PodSandbox,
        overhead: &LinuxResources,
        resources: &LinuxResources,
    ) -> Result<(), FakeError> {
        let request = UpdatePodSandboxRequest {
            pod: Some(pod.clone()),
            overhead_linux_resources: Some(overhead.clone()),
            linux_resources: Some(resources.clone()),
        };
        self.event::<Empty>(Event::UpdatePodSandbox, &request).await?;
        Ok(())
    }

    /// A pod's resources have changed.
    pub async fn post_update_pod_sandbox(&self, pod: &PodSandbox) -> Result<(), FakeError> {
        self.lifecycle(Event::PostUpdatePodSandbox, pod, None).await
    }

    /// A container is about to be created. What the plugin wants is given back as it is.
    pub async fn create_container(&self, pod: &PodSandbox, container: &Container) -> Result<Creation, FakeError> {
        let request = CreateContainerRequest { pod: Some(pod.clone()), container: Some(container.clone()) };
        let response: CreateContainerResponse = self.event(Event::CreateContainer, &request).await?;
        Ok(Creation { adjust: response.adjust.unwrap_or_default(), update: response.update })
    }

    /// A container has been created.
    pub async fn post_create_container(&self, pod: &PodSandbox, container: &Container) -> Result<(), FakeError> {
        self.lifecycle(Event::PostCreateContainer, pod, Some(container)).await
    }

    /// A container is about to be started.
    pub async fn start_container(&self, pod: &PodSandbox, container: &Container) -> Result<(), FakeError> {
        self.lifecycle(Event::StartContainer, pod, Some(container)).await
    }

    /// A container has been started.
    pub async fn post_start_container(&self, pod: &PodSandbox, container: &Container) -> Result<(), FakeError> {
        self.lifecycle(Event::PostStartContainer, pod, Some(container)).await
    }

    /// A container's resources are about to change.
    pub async fn update_container(
        &self,
        pod: &PodSandbox,
        container: &Container,
        resources: &LinuxResources,
    ) -> Result<Vec<ContainerUpdate>, FakeError> {
        let request = UpdateContainerRequest {
            pod: Some(pod.clone()),
            container: Some(container.clone()),
            linux_resources: Some(resources.clone()),
        };
        Ok(self.event::<UpdateContainerResponse>(Event::UpdateContainer, &request).await?.update)
    }

    /// A container's resources have changed.
    pub async fn post_update_container(&self, pod: &PodSandbox, container: &Container) -> Result<(), FakeError> {
        self.lifecycle(Event::PostUpdateContainer, pod, Some(container)).await
    }

    /// A container has been stopped.
    pub async fn stop_container(&self, pod: &PodSandbox, container: &Container) -> Result<Vec<ContainerUpdate>, FakeError> {
        let request = StopContainerRequest { pod: Some(pod.clone()), container: Some(container.clone()) };
        Ok(self.event::<StopContainerResponse>(Event::StopContainer, &request).await?.update)
    }

    /// A container has been removed.
    pub async fn remove_container(&self, pod: &PodSandbox, container: &Container) -> Result<(), FakeError> {
        self.lifecycle(Event::RemoveContainer, pod, Some(container)).await
    }

    /// What all plugins want of a new container is to be judged. As in a real runtime a failure, or no answer in time, is
    /// no acceptance.
    pub async fn validate_container_adjustment(
        &self,
        request: &ValidateContainerAdjustmentRequest,
    ) -> Result<Verdict, FakeError> {
        let response: ValidateContainerAdjustmentResponse = self.event(Event::ValidateContainerAdjustment, request).await?;
        Ok(if response.reject { Verdict::Reject(response.reason) } else { Verdict::Accept })
    }

    /// The runtime shuts down.
    pub async fn shutdown(&self) -> Result<(), FakeError> {
        self.call::<Empty>("Shutdown", &Empty {}).await?;
        Ok(())
    }

    /// Creates, starts, stops and removes a container, with all that comes in between.
    pub async fn live_and_die(&self, pod: &PodSandbox, container: &Container) -> Result<Creation, FakeError> {
        let creation = self.create_container(pod, container).await?;
        self.post_create_container(pod, container).await?;
        self.start_container(pod, container).await?;
        self.post_start_container(pod, container).await?;
        self.stop_container(pod, container).await?;
        self.remove_container(pod, container).await?;
        Ok(creation)
    }

    /// The events that exist in both dialects.
    async fn lifecycle(&self, event: Event, pod: &PodSandbox, container: Option<&Container>) -> Result<(), FakeError> {
        let (pod, container) = (Some(pod.clone()), container.cloned());
        if self.profile.has_own_methods() {
            let request = StartContainerRequest { pod: pod.clone(), container: container.clone() };
            match self.event::<Empty>(event, &request).await {
                Err(FakeError::Failed { code: UNIMPLEMENTED, .. }) => {}
                result => return result.map(|Empty {}| ()),
            }
        }
        let request = StateChangeEvent { event: event.into(), pod, container };
        self.ask::<Empty>(event, "StateChange", &request).await?;
        Ok(())
    }

    async fn event<A: Message + Default>(&self, event: Event, request: &impl Message) -> Result<A, FakeError> {
        self.ask(event, method_name(event), request).await
    }

    async fn ask<A: Message + Default>(&self, event: Event, method: &str, request: &impl Message) -> Result<A, FakeError> {
        if !self.events().contains(Events::from(event)) {
            return Ok(A::default());
        }
        let result = self.call(method, request).await;
        if matches!(result, Err(FakeError::TimedOut(_) | FakeError::Closed(_))) {
            self.hang_up();
        }
        result
    }
}
