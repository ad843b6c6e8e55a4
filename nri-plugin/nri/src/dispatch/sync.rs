//! Putting the parts of a Synchronize together.
//!
//! A runtime since NRI 0.7 cuts a message that would be longer than ttrpc allows into parts, and marks all but the last with
//! `more`. Each has to be answered with `more` too.

use crate::failure::{Code, Failure};
use crate::proto::{Container, PodSandbox, SynchronizeRequest};

/// The most pods and containers of one Synchronize. Kubernetes allows about a hundred pods on a node, and 0.6 kB of memory
/// are needed for each container even if it is sent as two bytes.
pub const MAX_SYNC_OBJECTS: usize = 100_000;
/// The most bytes of one Synchronize, encoded: sixteen parts of the greatest length.
pub const MAX_SYNC_BYTES: usize = 64 << 20;

/// All pods and all containers.
type Whole = (Vec<PodSandbox>, Vec<Container>);

#[derive(Debug, Default)]
pub(super) struct Parts {
    pods: Vec<PodSandbox>,
    containers: Vec<Container>,
    objects: usize,
    bytes: usize,
}

impl Parts {
    /// Takes one part; the whole, if it was the last.
    pub(super) fn add(&mut self, payload: &[u8]) -> Result<Option<Whole>, Failure> {
        self.bytes = self.bytes.saturating_add(payload.len());
        // Counted before anything is decoded.
        self.objects = self.objects.saturating_add(top_level_fields(payload, MAX_SYNC_OBJECTS + 2));
        // One more than the objects: `more`.
        if self.bytes > MAX_SYNC_BYTES || self.objects > MAX_SYNC_OBJECTS + 1 {
            let text = format!(
                "Synchronize has more than {MAX_SYNC_OBJECTS} pods and containers or {MAX_SYNC_BYTES} bytes; remove containers that are gone from the runtime"
            );
            return Err(Failure::new(Code::ResourceExhausted, text));
        }
        let part: SynchronizeRequest = super::decode(payload)?;
        self.objects -= usize::from(part.more).min(self.objects);
        self.pods.extend(part.pods);
        self.containers.extend(part.containers);
        if part.more {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        Ok(Some((whole.pods, whole.containers)))
    }
}

/// How many fields an encoded message has, without looking into them; stops counting at `limit` and at nonsense.
fn top_level_fields(mut bytes: &[u8], limit: usize) -> usize {
    use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};

    let mut count = 0;
    while !bytes.is_empty() && count < limit {
        let skipped = decode_key(&mut bytes).and_then(|(tag, wire)| {
            // Groups nest; NRI has none, and prost refuses them later.
            if wire == WireType::StartGroup {
                bytes = &[];
                return Ok(());
            }
            skip_field(wire, tag, &mut bytes, DecodeContext::default())
        });
        count += 1;
        if skipped.is_err() {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn request(pods: usize, containers: usize, more: bool) -> Vec<u8> {
        let request = SynchronizeRequest {
            pods: vec![PodSandbox::default(); pods],
            containers: vec![Container::default(); containers],
            more,
        };
        request.encode_to_vec()
    }

    #[test]
    fn parts_become_one() {
        let mut parts = Parts::default();
        assert_eq!(parts.add(&request(3, 0, true)).unwrap(), None);
        assert_eq!(parts.add(&request(0, 4, true)).unwrap(), None);
        let (pods, containers) = parts.add(&request(1, 1, false)).unwrap().unwrap();
        assert_eq!((pods.len(), containers.len()), (4, 5));
        // A second synchronization begins from nothing.
        let (pods, _) = parts.add(&request(0, 0, false)).unwrap().unwrap();
        assert_eq!(pods.len(), 0);
    }

    #[test]
    fn the_number_of_objects_is_limited() {
        let mut parts = Parts::default();
        assert_eq!(parts.add(&request(0, MAX_SYNC_OBJECTS / 2, true)).unwrap(), None);
        assert!(parts.add(&request(0, MAX_SYNC_OBJECTS / 2, false)).unwrap().is_some());
        let mut parts = Parts::default();
        assert_eq!(parts.add(&request(0, MAX_SYNC_OBJECTS / 2, true)).unwrap(), None);
        assert_eq!(parts.add(&request(0, MAX_SYNC_OBJECTS / 2 + 1, true)).unwrap_err().code, Code::ResourceExhausted);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert_eq!(Parts::default().add(&[0x0a, 0xff, 0xff]).unwrap_err().code, Code::InvalidArgument);
        assert_eq!(Parts::default().add(&[0x0b]).unwrap_err().code, Code::InvalidArgument);
    }
}
