//! Replies between gateways. Whoever published a request waits for its reply; the owner of its partition's slot delivers it,
//! and gets the reply in the answer of a sink.
//!
//! The gateway of the request tells that owner that it waits before the event is stored, and the next owner where the slot
//! gets another one meanwhile. The owner asks the sink for a reply (`Prefer: reply`), and passes the first that comes on to
//! every gateway that waits. Nothing of this is stored: where either of them dies, or a slot changes hands between the two
//! looks of whoever waits, the request ends as one without a reply does, with its receipt.
//!
//! # Messages of the service [`SERVICE`]
//!
//! The length of the head (u32, little-endian), the head in JSON ([`Head`]), and with a reply its event as
//! [`tidegate_schemas::compact`] writes it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tidegate_backbone::catalogue::Topic;
use tidegate_backbone::request::{Handler, Refusal, Request, Requests, To};
use tidegate_backbone::{BoxFuture, NodeId};
use tidegate_schemas::{Event, compact, limits};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::waiters::{Identity, identity};
use crate::blocks::pubsub::{Inner, PubSub};

/// The service by which gateways pass replies on.
const SERVICE: &str = "replies";

/// What a message says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Head {
    /// Whoever asks waits so many milliseconds for the reply to that request.
    Wait { source: String, id: String, milliseconds: u64 },
    /// That request has a reply, which follows.
    Reply { source: String, id: String },
}

fn write(head: &Head, reply: Option<&Event>) -> Bytes {
    let head = serde_json::to_vec(head).expect("a head is made of strings and numbers");
    let mut message = BytesMut::with_capacity(4 + head.len() + reply.map_or(0, compact::encoded_len));
    message.put_u32_le(u32::try_from(head.len()).expect("two attributes are far below 4 GiB"));
    message.extend_from_slice(&head);
    if let Some(reply) = reply {
        compact::encode(reply, &mut message);
    }
    message.freeze()
}

/// What a message says, and the reply that comes with it.
fn read(message: &Bytes) -> Result<(Head, Option<Event>), String> {
    const SHORT: &str = "the message ends too early";
    let (length, rest) = message.split_first_chunk::<4>().ok_or(SHORT)?;
    let length = u32::from_le_bytes(*length) as usize;
    let head = rest.get(..length).ok_or(SHORT)?;
    let head = serde_json::from_slice(head).map_err(|error| error.to_string())?;
    let reply = match head {
        Head::Wait { .. } => None,
        Head::Reply { .. } => Some(compact::decode(message.slice(4 + length..)).map_err(|error| error.to_string())?),
    };
    Ok((head, reply))
}

/// The other gateways, where there are any.
#[derive(Debug, Default)]
pub(in crate::blocks::pubsub) struct Elsewhere(std::sync::OnceLock<Requests>);

/// Answers for those who wait here, and notes who waits elsewhere.
struct Answers(Weak<Inner>);

impl Handler for Answers {
    fn handle(&self, request: Request) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async move {
            let Some(inner) = self.0.upgrade() else {
                return Err(Refusal::new("closed", "this gateway delivers nothing any more"));
            };
            let malformed = |error| Refusal::new("malformed", format!("the message cannot be read: {error}"));
            match read(&request.body).map_err(malformed)? {
                (Head::Wait { source, id, milliseconds }, _) => {
                    let timeout = Duration::from_millis(milliseconds).min(limits::REPLY_TIMEOUT_MAX);
                    let identity = (source.into(), id.into());
                    if !inner.waiters.wait_elsewhere(identity, request.from, Instant::now() + timeout) {
                        return Err(Refusal::new("too-many", "too many requests wait for replies already"));
                    }
                }
                (Head::Reply { source, id }, reply) => {
                    let reply = reply.ok_or_else(|| malformed("there is no reply".to_owned()))?;
                    inner.waiters.tell(&(source.into(), id.into()), &reply);
                }
            }
            Ok(Bytes::new())
        })
    }
}

/// The owner of a request's partition, as far as it was told that its reply is wanted.
pub(super) struct Owner<'a> {
    block: &'a PubSub,
    slot: u32,
    request: Identity,
    until: Instant,
    told: Option<NodeId>,
}

impl Owner<'_> {
    /// Tells the owner that there is, where it is another gateway that was not told.
    pub(super) async fn follow(&mut self) {
        let Some(requests) = self.block.0.elsewhere.0.get() else { return };
        let Some(owner) = self.block.0.consume.other_owner(self.slot).filter(|owner| self.told != Some(*owner)) else {
            return;
        };
        let left = self.until.saturating_duration_since(Instant::now());
        let (source, id) = (self.request.0.to_string(), self.request.1.to_string());
        let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let message = write(&Head::Wait { source, id, milliseconds }, None);
        let timeout = limits::REPLY_PASS_TIMEOUT.min(left);
        match requests.call(To::Node(owner), SERVICE, message, timeout).await {
            Ok(_) => self.told = Some(owner),
            // It is told again, or there will be another one.
            Err(error) => {
                debug!(%owner, slot = self.slot, %error, "the owner of a request's partition was not reached")
            }
        }
    }
}

impl PubSub {
    /// Takes replies of other gateways from now on, and passes replies on to them.
    pub fn join(&self, requests: &Requests) {
        if self.0.elsewhere.0.set(requests.clone()).is_ok() {
            requests.serve(SERVICE, Arc::new(Answers(Arc::downgrade(&self.0))));
        }
    }

    pub(super) fn owner_told(&self, topic: &Topic, request: &Event, until: Instant) -> Owner<'_> {
        let slot = self.0.consume.slot_of(topic, request);
        Owner { block: self, slot, request: identity(request), until, told: None }
    }

    /// Gives a reply to all who wait for one to that request, here and elsewhere.
    pub(in crate::blocks::pubsub) async fn tell_reply(&self, request: &Event, reply: &Event) {
        let request = identity(request);
        self.0.waiters.tell(&request, reply);
        let nodes = self.0.waiters.take_elsewhere(&request);
        let (false, Some(requests)) = (nodes.is_empty(), self.0.elsewhere.0.get()) else { return };
        let head = Head::Reply { source: request.0.to_string(), id: request.1.to_string() };
        let message = write(&head, Some(reply));
        let (request, message) = (&request, &message);
        let calls = nodes.into_iter().map(|node| async move {
            let call = requests.call(To::Node(node), SERVICE, message.clone(), limits::REPLY_PASS_TIMEOUT);
            if let Err(error) = call.await {
                warn!(%node, source = %request.0, id = %request.1, %error,
                    "a reply did not reach the gateway that waits for it");
            }
        });
        futures_util::future::join_all(calls).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_off_is_refused() {
        let wait = Head::Wait { source: "/shop".to_owned(), id: "7".to_owned(), milliseconds: 5_000 };
        assert_eq!(read(&write(&wait, None)), Ok((wait, None)));
        let reply = Event::builder("r", "/r", "answer").build().unwrap();
        let head = || Head::Reply { source: "/shop".to_owned(), id: "7".to_owned() };
        let message = write(&head(), Some(&reply));
        assert_eq!(read(&message), Ok((head(), Some(reply))));
        for length in 0..message.len() {
            assert!(read(&message.slice(..length)).is_err(), "{length} bytes of {}", message.len());
        }
        assert!(read(&write(&head(), None)).is_err(), "a reply without its event");
    }
}
