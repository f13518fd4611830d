//! Who waits for the reply to a request: here, and at other gateways.

use std::collections::HashMap;
use std::sync::Arc;

use bytestring::ByteString;
use parking_lot::Mutex;
use tidegate_backbone::NodeId;
use tidegate_schemas::{Event, limits};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The `source` and `id` of a request.
pub(super) type Identity = (ByteString, ByteString);

pub(super) fn identity(event: &Event) -> Identity {
    (event.source().clone(), event.id().clone())
}

/// Those who wait for replies, by the `source` and `id` of the event that they published.
#[derive(Debug, Default)]
pub(in crate::blocks::pubsub) struct Waiters(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    count: usize,
    by_request: HashMap<Identity, Vec<(u64, oneshot::Sender<Event>)>>,
    elsewhere: Elsewhere,
}

/// Gateways that wait, each until its request is over.
#[derive(Debug, Default)]
struct Elsewhere {
    count: usize,
    by_request: HashMap<Identity, Vec<(NodeId, Instant)>>,
}

impl Elsewhere {
    /// Lets go of those whose time is over.
    fn forget(&mut self, now: Instant) {
        self.by_request.retain(|_, nodes| {
            nodes.retain(|(_, until)| *until > now);
            !nodes.is_empty()
        });
        self.count = self.by_request.values().map(Vec::len).sum();
    }
}

/// One who waits here; dropped, it waits no more.
#[derive(Debug)]
pub(super) struct Waiter {
    waiting: Arc<Mutex<Waiting>>,
    identity: Identity,
    number: u64,
    pub(super) reply: oneshot::Receiver<Event>,
}

impl Waiters {
    /// Waits for the first reply to an event; none where too many wait already.
    pub(super) fn wait(&self, event: &Event) -> Option<Waiter> {
        let mut waiting = self.0.lock();
        if waiting.count >= limits::REPLY_WAITERS {
            return None;
        }
        let (sender, reply) = oneshot::channel();
        let (identity, number) = (identity(event), waiting.next);
        waiting.next += 1;
        waiting.count += 1;
        waiting.by_request.entry(identity.clone()).or_default().push((number, sender));
        Some(Waiter { waiting: Arc::clone(&self.0), identity, number, reply })
    }

    /// Another gateway waits for the first reply to an event, until then; false where too many wait already.
    pub(super) fn wait_elsewhere(&self, identity: Identity, node: NodeId, until: Instant) -> bool {
        let mut waiting = self.0.lock();
        let elsewhere = &mut waiting.elsewhere;
        if elsewhere.count >= limits::REPLY_WAITERS {
            elsewhere.forget(Instant::now());
            if elsewhere.count >= limits::REPLY_WAITERS {
                return false;
            }
        }
        let nodes = elsewhere.by_request.entry(identity).or_default();
        match nodes.iter_mut().find(|(known, _)| *known == node) {
            Some((_, known)) => *known = until.max(*known),
            None => {
                nodes.push((node, until));
                elsewhere.count += 1;
            }
        }
        true
    }

    /// Whether somebody waits for a reply to the event.
    pub(in crate::blocks::pubsub) fn any(&self, event: &Event) -> bool {
        let waiting = self.0.lock();
        if waiting.count == 0 && waiting.elsewhere.count == 0 {
            return false;
        }
        let (identity, now) = (identity(event), Instant::now());
        let there = waiting.elsewhere.by_request.get(&identity);
        waiting.by_request.contains_key(&identity)
            || there.is_some_and(|nodes| nodes.iter().any(|(_, until)| *until > now))
    }

    /// Gives a reply to all who wait here for one to that request.
    pub(super) fn tell(&self, request: &Identity, reply: &Event) {
        let mut waiting = self.0.lock();
        let told = waiting.by_request.remove(request).unwrap_or_default();
        waiting.count -= told.len();
        for (_, sender) in told {
            // Whoever has just given up does not need it.
            let _ = sender.send(reply.clone());
        }
    }

    /// The gateways that wait for a reply to that request, which are to be told.
    pub(super) fn take_elsewhere(&self, request: &Identity) -> Vec<NodeId> {
        let mut waiting = self.0.lock();
        let nodes = waiting.elsewhere.by_request.remove(request).unwrap_or_default();
        waiting.elsewhere.count -= nodes.len();
        let now = Instant::now();
        nodes.into_iter().filter(|(_, until)| *until > now).map(|(node, _)| node).collect()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock();
        let Some(of_request) = waiting.by_request.get_mut(&self.identity) else { return };
        let before = of_request.len();
        of_request.retain(|(number, _)| *number != self.number);
        let (gone, empty) = (before - of_request.len(), of_request.is_empty());
        if empty {
            waiting.by_request.remove(&self.identity);
        }
        waiting.count -= gone;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event(id: &str) -> Event {
        Event::builder(id.to_owned(), "/shop", "ask").build().unwrap()
    }

    #[tokio::test]
    async fn the_first_reply_ends_every_wait_and_one_who_gives_up_leaves_nothing_behind() {
        let (waiters, request) = (Waiters::default(), event("7"));
        let (mut one, mut two) = (waiters.wait(&request).unwrap(), waiters.wait(&request).unwrap());
        let gone = waiters.wait(&request).unwrap();
        drop(gone);
        let reply = event("r");
        assert!(waiters.any(&request) && !waiters.any(&reply));
        waiters.tell(&identity(&request), &reply);
        assert_eq!((&mut one.reply).await.unwrap(), reply);
        assert_eq!((&mut two.reply).await.unwrap(), reply);
        assert!(!waiters.any(&request));
        drop((one, two));
        let waiting = waiters.0.lock();
        assert_eq!((waiting.count, waiting.by_request.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_waits_is_told_once_and_not_after_its_time() {
        let (waiters, request) = (Waiters::default(), event("7"));
        let soon = |seconds| Instant::now() + Duration::from_secs(seconds);
        for node in [1, 2, 1] {
            assert!(waiters.wait_elsewhere(identity(&request), NodeId(node << 16), soon(node)));
        }
        assert!(waiters.any(&request) && !waiters.any(&event("8")));
        tokio::time::advance(Duration::from_millis(1_500)).await;
        assert_eq!(waiters.take_elsewhere(&identity(&request)), [NodeId(2 << 16)], "the other's time is over");
        assert_eq!(waiters.take_elsewhere(&identity(&request)), []);
        assert!(!waiters.any(&request));
        for n in 0..limits::REPLY_WAITERS {
            assert!(waiters.wait_elsewhere(identity(&event(&n.to_string())), NodeId(1 << 16), soon(1)));
        }
        assert!(!waiters.wait_elsewhere(identity(&request), NodeId(1 << 16), soon(1)), "too many wait");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!waiters.any(&event("8")), "its time is over");
        assert!(waiters.wait_elsewhere(identity(&request), NodeId(1 << 16), soon(1)), "what is over makes room");
        assert_eq!(waiters.0.lock().elsewhere.count, 1);
    }
}
