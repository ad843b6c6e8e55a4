//! The messages' way onto the wire: they are encoded before, once for all who get them.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Requests are decoded to `Q`, answers are bytes.
pub(super) struct Encoded<Q>(PhantomData<fn() -> Q>);

impl<Q> Default for Encoded<Q> {
    fn default() -> Encoded<Q> {
        Encoded(PhantomData)
    }
}

impl<Q: Message + Default + 'static> Codec for Encoded<Q> {
    type Encode = Bytes;
    type Decode = Q;
    type Encoder = Encoded<Q>;
    type Decoder = Encoded<Q>;

    fn encoder(&mut self) -> Encoded<Q> {
        Encoded::default()
    }

    fn decoder(&mut self) -> Encoded<Q> {
        Encoded::default()
    }
}

impl<Q> Encoder for Encoded<Q> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl<Q: Message + Default> Decoder for Encoded<Q> {
    type Item = Q;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Q>, Status> {
        let undecodable = |error| Status::invalid_argument(format!("the request cannot be decoded: {error}"));
        Q::decode(buffer).map(Some).map_err(undecodable)
    }
}
