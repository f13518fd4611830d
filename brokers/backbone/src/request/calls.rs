//! Requests of this node that wait for their reply. Each ends once: whoever takes it out of the table answers it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use parking_lot::Mutex;
use tidegate_schemas::limits;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::To;
use super::counters::count;
use super::error::RequestError;
use super::node::Node;
use super::transfer::{Assembly, Credit, Pushed, Ticked, send_rest, small, start};
use super::wire::{Body, Cause, Kind, RequestHead};
use crate::budget::Account;
use crate::environment::milliseconds;
use crate::error::{Applied, Error, ErrorKind};
use crate::lane::NodeId;

type Answer = Result<Bytes, RequestError>;

#[derive(Debug)]
pub(super) struct Calls {
    next: AtomicU64,
    room: Semaphore,
    table: Mutex<HashMap<u64, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    node: NodeId,
    answer: oneshot::Sender<Answer>,
    credit: Arc<Credit>,
    /// The reply, as far as it has come.
    assembly: Option<Assembly>,
}

impl Calls {
    pub(super) fn new(at_once: usize) -> Self {
        Self { next: AtomicU64::new(1), room: Semaphore::new(at_once), table: Mutex::default() }
    }

    /// Whether no call waits.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.table.lock().is_empty()
    }
}

/// A call that waits. What has not been answered when this is dropped is cancelled.
struct Open<'a> {
    node: &'a Node,
    to: NodeId,
    id: u64,
    answered: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.node.presence.closed(self.to);
        self.node.calls.table.lock().remove(&self.id);
        if !self.answered {
            self.node.post(self.to, Kind::Cancel { id: self.id });
        }
    }
}

pub(super) async fn call(node: &Arc<Node>, to: To, service: &str, body: Bytes, deadline: Instant, hop: u8) -> Answer {
    if body.len() > node.options.body_bytes {
        return Err(RequestError::TooLarge { limit_bytes: node.options.body_bytes });
    }
    if hop > limits::LANE_HOPS {
        let text = format!("a request for {service} was passed on {} times, and is not once more", limits::LANE_HOPS);
        return Err(RequestError::Unavailable(text));
    }
    let Ok(_room) = node.calls.room.try_acquire() else {
        let what = format!("{} requests of this node wait for their reply, and no more are sent", node.options.calls);
        return Err(RequestError::Busy { what, retry_after: limits::LANE_RETRY_AFTER });
    };
    let mut tried = Vec::new();
    loop {
        if node.stop.is_cancelled() {
            return Err(RequestError::Closed);
        }
        let asked = node.presence.pick(to, service, &tried)?;
        let answer = once(node, asked, service, &body, deadline, hop).await;
        tried.push(asked);
        match &answer {
            Err(error)
                if to == To::Any
                    && error.elsewhere()
                    && tried.len() < limits::LANE_ATTEMPTS
                    && node.presence.pick(to, service, &tried).is_ok() => {}
            _ => return answer,
        }
    }
}

async fn once(node: &Node, to: NodeId, service: &str, body: &Bytes, deadline: Instant, hop: u8) -> Answer {
    let left = deadline.saturating_duration_since(Instant::now());
    let left_ms = u32::try_from(milliseconds(left)).unwrap_or(u32::MAX);
    if left_ms == 0 {
        return Err(RequestError::Unavailable(format!("the time for {service} was over before it was sent")));
    }
    let id = node.calls.next.fetch_add(1, Ordering::Relaxed);
    let (answer, mut answered) = oneshot::channel();
    let credit = Arc::new(Credit::new());
    let waiting = Waiting { node: to, answer, credit: Arc::clone(&credit), assembly: None };
    node.calls.table.lock().insert(id, waiting);
    node.presence.opened(to);
    let mut open = Open { node, to, id, answered: false };
    let head = RequestHead {
        id,
        left_ms,
        deadline_ms: milliseconds(node.environment.clock.since_boot()).saturating_add(left_ms.into()),
        hop,
        service: service.into(),
        total: small(body.len()),
    };
    let first = node.encode(to, Kind::Request(head, start(body, node.chunk_bytes)));
    count(&node.counters.requests_sent);
    let first = node.send(to, first);
    let sending = async {
        if let Err(error) = first.await {
            // Where its fate is not known a reply may still come.
            return if error.applied() == Applied::Unknown { Ok(()) } else { Err(unsent(node, to, &error)) };
        }
        let rest = send_rest(node, to, id, Body::Request, body, credit.wait()).await;
        // A request without all of its body is not carried out, whatever became of one part.
        rest.map_err(|error| unsent(node, to, &error))
    };
    tokio::pin!(sending);
    let mut sent = false;
    let result = loop {
        tokio::select! {
            biased;
            answer = &mut answered => break answer.unwrap_or(Err(RequestError::Closed)),
            () = node.stop.cancelled() => break Err(RequestError::Closed),
            () = tokio::time::sleep_until(deadline) => {
                return Err(RequestError::DeadlineExceeded { node: to, service: service.into() });
            }
            result = &mut sending, if !sent => match result {
                Ok(()) => sent = true,
                Err(error) => return Err(error),
            },
        }
    };
    open.answered = true;
    result
}

fn unsent(node: &Node, to: NodeId, error: &Error) -> RequestError {
    match error.kind() {
        ErrorKind::NotFound => {
            node.presence.missing(to);
            RequestError::Nobody(format!("node {to} does not receive: {error}"))
        }
        ErrorKind::Backpressure { retry_after } => {
            RequestError::Busy { what: error.to_string(), retry_after: *retry_after }
        }
        ErrorKind::Closed => RequestError::Closed,
        _ => RequestError::Unavailable(format!("the request to node {to} could not be sent: {error}")),
    }
}

/// The call of that id, where it waits for that node.
fn waiting(table: &mut HashMap<u64, Waiting>, from: NodeId, id: u64) -> Option<&mut Waiting> {
    table.get_mut(&id).filter(|waiting| waiting.node == from)
}

fn end(table: &mut HashMap<u64, Waiting>, id: u64, answer: Answer) {
    if let Some(waiting) = table.remove(&id) {
        // Whoever waited may have gone this moment.
        let _ = waiting.answer.send(answer);
    }
}

pub(super) fn reply(node: &Node, from: NodeId, id: u64, total: u32, payload: Bytes) {
    let mut table = node.calls.table.lock();
    let Some(waiting) = waiting(&mut table, from, id) else {
        count(&node.counters.late);
        return;
    };
    if waiting.assembly.is_some() {
        count(&node.counters.chunks_repeated);
        return;
    }
    let total = total as usize;
    if payload.len() == total {
        end(&mut table, id, Ok(payload));
        return;
    }
    let permit = if total > node.options.body_bytes {
        Err(format!("the reply of node {from} has {total} bytes, and {} are taken", node.options.body_bytes))
    } else {
        node.environment.memory.try_take(Account::Bodies, total).map_err(|exhausted| exhausted.to_string())
    };
    match permit {
        Ok(permit) => {
            waiting.assembly = Some(Assembly::new(total, &payload, permit, node.options.checks_chunks()));
        }
        Err(text) => {
            end(&mut table, id, Err(RequestError::Unknown(text)));
            drop(table);
            node.post(from, Kind::Cancel { id });
        }
    }
}

pub(super) fn chunk(node: &Node, from: NodeId, id: u64, offset: u32, payload: &[u8]) {
    let mut table = node.calls.table.lock();
    let Some(waiting) = waiting(&mut table, from, id) else { return };
    let pushed = waiting.assembly.as_mut().map_or(Pushed::Broken, |assembly| assembly.push(offset as usize, payload));
    match pushed {
        Pushed::More => {}
        Pushed::Credit(offset) => {
            drop(table);
            node.post(from, Kind::Credit { id, of: Body::Reply, offset });
        }
        Pushed::Repeated => count(&node.counters.chunks_repeated),
        Pushed::Whole => {
            let body = waiting.assembly.take().map(Assembly::finish).unwrap_or_default();
            end(&mut table, id, Ok(body));
        }
        Pushed::Broken => {
            count(&node.counters.transfers_broken);
            end(&mut table, id, Err(RequestError::Unknown(format!("a part of node {from}'s reply is lost"))));
            drop(table);
            node.post(from, Kind::Cancel { id });
        }
    }
}

pub(super) fn refusal(node: &Node, from: NodeId, id: u64, cause: Cause, code: ByteString, message: ByteString) {
    let mut table = node.calls.table.lock();
    if waiting(&mut table, from, id).is_none() {
        count(&node.counters.late);
        return;
    }
    end(&mut table, id, Err(RequestError::of_refusal(from, cause, code, message)));
}

pub(super) fn credit(node: &Node, from: NodeId, id: u64, offset: u32) {
    if let Some(waiting) = waiting(&mut node.calls.table.lock(), from, id) {
        waiting.credit.give(offset);
    }
}

/// Those nodes are gone: what was asked of them is not answered any more.
pub(super) fn gone(node: &Node, nodes: &[NodeId]) {
    if nodes.is_empty() {
        return;
    }
    let mut table = node.calls.table.lock();
    let ended: Vec<(u64, NodeId)> = table
        .iter()
        .filter(|(_, waiting)| nodes.contains(&waiting.node))
        .map(|(id, waiting)| (*id, waiting.node))
        .collect();
    for (id, gone) in ended {
        end(&mut table, id, Err(RequestError::Unknown(format!("node {gone} is gone"))));
    }
}

pub(super) fn tick(node: &Node, gap: Duration) {
    let mut remind = Vec::new();
    let mut table = node.calls.table.lock();
    let mut over = Vec::new();
    for (id, waiting) in table.iter_mut() {
        match waiting.assembly.as_mut().map(|assembly| assembly.tick(gap)) {
            None | Some(Ticked::Fine) => {}
            Some(Ticked::Remind(offset)) => remind.push((waiting.node, *id, offset)),
            Some(Ticked::Over) => over.push((waiting.node, *id)),
        }
    }
    for (from, id) in &over {
        count(&node.counters.transfers_broken);
        end(&mut table, *id, Err(RequestError::Unknown(format!("the reply of node {from} stopped amid its body"))));
    }
    drop(table);
    for (to, id) in over {
        node.post(to, Kind::Cancel { id });
    }
    for (to, id, offset) in remind {
        node.post(to, Kind::Credit { id, of: Body::Reply, offset });
    }
}
