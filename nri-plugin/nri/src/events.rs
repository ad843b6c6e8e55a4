//! The set of events that a plugin wants.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use crate::proto::Event;

/// A set of events.
///
/// ```
/// use nri::Events;
///
/// let wanted = Events::CREATE_CONTAINER | Events::REMOVE_CONTAINER;
/// assert!(wanted.contains(Events::CREATE_CONTAINER));
/// assert_eq!(wanted.to_string(), "CreateContainer, RemoveContainer");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Events(u32);

const fn bit(event: Event) -> Events {
    Events(1 << (event as u32 - 1))
}

impl Events {
    /// No event.
    pub const NONE: Events = Events(0);
    /// A pod's sandbox runs. An error fails the pod.
    pub const RUN_POD_SANDBOX: Events = bit(Event::RunPodSandbox);
    /// A pod's resources are about to change; since NRI 0.10.
    pub const UPDATE_POD_SANDBOX: Events = bit(Event::UpdatePodSandbox);
    /// A pod's resources have changed; since NRI 0.10.
    pub const POST_UPDATE_POD_SANDBOX: Events = bit(Event::PostUpdatePodSandbox);
    /// A pod has been stopped.
    pub const STOP_POD_SANDBOX: Events = bit(Event::StopPodSandbox);
    /// A pod has been removed.
    pub const REMOVE_POD_SANDBOX: Events = bit(Event::RemovePodSandbox);
    /// A container is about to be created. An error fails the creation, in containerd and CRI-O.
    pub const CREATE_CONTAINER: Events = bit(Event::CreateContainer);
    /// A container has been created. An error is only logged.
    pub const POST_CREATE_CONTAINER: Events = bit(Event::PostCreateContainer);
    /// A container is about to be started. An error fails the start in containerd; CRI-O only logs it.
    pub const START_CONTAINER: Events = bit(Event::StartContainer);
    /// A container has been started. An error is only logged.
    pub const POST_START_CONTAINER: Events = bit(Event::PostStartContainer);
    /// A container's resources are about to change.
    pub const UPDATE_CONTAINER: Events = bit(Event::UpdateContainer);
    /// A container's resources have changed.
    pub const POST_UPDATE_CONTAINER: Events = bit(Event::PostUpdateContainer);
    /// A container has been stopped; also sent when its creation failed after the plugins were asked.
    pub const STOP_CONTAINER: Events = bit(Event::StopContainer);
    /// A container has been removed; also sent when its creation failed after the plugins were asked.
    pub const REMOVE_CONTAINER: Events = bit(Event::RemoveContainer);
    /// What all plugins want of a new container is to be judged; since NRI 0.10. An error, a rejection or no answer in time
    /// fails the creation.
    pub const VALIDATE_CONTAINER_ADJUSTMENT: Events = bit(Event::ValidateContainerAdjustment);
    /// What NRI 0.2 to 0.9 know.
    pub const BEFORE_0_10: Events = Events(0x7ff);
    /// What NRI 0.10 to 0.12 know.
    pub const ALL: Events = Events(0x3fff);

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Events) -> Events {
        Events(self.0 & other.0)
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub const fn without(self, other: Events) -> Events {
        Events(self.0 & !other.0)
    }

    /// The set as the wire has it: bit N-1 is event N.
    pub const fn mask(self) -> i32 {
        self.0.cast_signed()
    }

    /// The set of a mask from the wire; bits that are no event of NRI 0.12 are an error, and given back.
    pub const fn from_mask(mask: i32) -> Result<Events, i32> {
        let extra = mask & !Events::ALL.mask();
        if extra == 0 { Ok(Events(mask.cast_unsigned())) } else { Err(extra) }
    }

    /// The events of the set, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Event> {
        (1..=14).filter_map(|number| Event::try_from(number).ok()).filter(move |event| self.contains(Events::from(*event)))
    }
}

impl From<Event> for Events {
    fn from(event: Event) -> Events {
        if event == Event::Unknown { Events::NONE } else { bit(event) }
    }
}

impl BitOr for Events {
    type Output = Events;

    fn bitor(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

impl BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Events) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (at, event) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            f.write_str(method_name(event))?;
        }
        Ok(())
    }
}

/// The name of the event's own method.
pub(crate) const fn method_name(event: Event) -> &'static str {
    match event {
        Event::Unknown => "unknown",
        Event::RunPodSandbox => "RunPodSandbox",
        Event::StopPodSandbox => "StopPodSandbox",
        Event::RemovePodSandbox => "RemovePodSandbox",
        Event::CreateContainer => "CreateContainer",
        Event::PostCreateContainer => "PostCreateContainer",
        Event::StartContainer => "StartContainer",
        Event::PostStartContainer => "PostStartContainer",
        Event::UpdateContainer => "UpdateContainer",
        Event::PostUpdateContainer => "PostUpdateContainer",
        Event::StopContainer => "StopContainer",
        Event::RemoveContainer => "RemoveContainer",
        Event::UpdatePodSandbox => "UpdatePodSandbox",
        Event::PostUpdatePodSandbox => "PostUpdatePodSandbox",
        Event::ValidateContainerAdjustment => "ValidateContainerAdjustment",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_those_of_the_protocol() {
        assert_eq!(Events::RUN_POD_SANDBOX.mask(), 1);
        assert_eq!(Events::REMOVE_CONTAINER.mask(), 1 << 10);
        assert_eq!(Events::VALIDATE_CONTAINER_ADJUSTMENT.mask(), 1 << 13);
        assert_eq!(Events::ALL.iter().count(), 14);
        assert_eq!(Events::ALL.iter().fold(Events::NONE, |all, event| all | event.into()), Events::ALL);
        assert_eq!(Events::from_mask(0x3fff), Ok(Events::ALL));
        assert_eq!(Events::from_mask(0x4001), Err(0x4000));
        assert_eq!(Events::from_mask(-1), Err(!0x3fff));
    }
}
