//! Requests of others: which are carried out, and that none is twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use parking_lot::Mutex;
use tidegate_schemas::limits;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counters::count;
use super::error::Refusal;
use super::node::Node;
use super::seen::Seen;
use super::transfer::{Assembly, Credit, Pushed, Ticked, send_patiently, send_rest, small, start};
use super::wire::{Body, Cause, Kind, RequestHead};
use super::{Handler, Request};
use crate::budget::Account;
use crate::lane::NodeId;

/// A request: who asks, and the number that it has there.
type Key = (NodeId, u64);

#[derive(Debug, Default)]
pub(super) struct Served {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    callers: HashMap<NodeId, Caller>,
    running: HashMap<Key, Running>,
    arriving: HashMap<Key, Arriving>,
}

#[derive(Debug)]
struct Caller {
    seen: Seen,
    heard_at: Instant,
}

#[derive(Debug)]
struct Running {
    cancel: CancellationToken,
    credit: Credit,
}

/// A request whose body has not come whole.
#[derive(Debug)]
struct Arriving {
    request: Request,
    assembly: Assembly,
}

impl Served {
    pub(super) fn is_idle(&self) -> bool {
        let table = self.table.lock();
        table.running.is_empty() && table.arriving.is_empty()
    }
}

impl Table {
    /// Whether a request is the first of its id; none where there are too many callers to tell.
    fn first(&mut self, (from, id): Key, now: Instant) -> Option<bool> {
        if !self.callers.contains_key(&from) {
            if self.callers.len() >= limits::LANE_MEMBERS {
                return None;
            }
            self.callers.insert(from, Caller { seen: Seen::new(limits::LANE_SEEN_REQUESTS), heard_at: now });
        }
        let caller = self.callers.get_mut(&from)?;
        caller.heard_at = now;
        Some(caller.seen.insert(id))
    }
}

pub(super) fn request(node: &Arc<Node>, from: NodeId, head: RequestHead, payload: Bytes) {
    count(&node.counters.requests_received);
    let now = Instant::now();
    let key = (from, head.id);
    if node.options.checks_repeats() {
        match node.served.table.lock().first(key, now) {
            Some(true) => {}
            Some(false) => return count(&node.counters.duplicates),
            None => return turn_away(node, key, Cause::Busy, "", "too many gateways have sent requests"),
        }
    }
    let left = Duration::from_millis(head.left_ms.into()).min(limits::LANE_TIMEOUT_MAX);
    let delay = node.presence.delay(from, &head, node.environment.clock.since_boot());
    if delay >= left {
        return count(&node.counters.expired);
    }
    let deadline = now + (left - delay);
    if node.leaving.load(Ordering::SeqCst) {
        return turn_away(node, key, Cause::Leaving, "", "it is leaving");
    }
    let Some(handler) = node.handler(&head.service) else {
        return turn_away(node, key, Cause::Unserved, "", &format!("it does not offer {}", head.service));
    };
    let total = head.total as usize;
    if total > node.options.body_bytes {
        let limit = node.options.body_bytes.to_string();
        return turn_away(node, key, Cause::TooLarge, &limit, "the body is too large");
    }
    let permit = match node.environment.memory.try_take(Account::Bodies, total) {
        Ok(permit) => permit,
        Err(exhausted) => return turn_away(node, key, Cause::Busy, "", &exhausted.to_string()),
    };
    let mut request = Request { from, service: head.service, body: Bytes::new(), deadline, hop: head.hop };
    let mut table = node.served.table.lock();
    if table.running.len() + table.arriving.len() >= node.options.requests {
        drop(table);
        let text = format!("it carries out {} requests, and takes no more", node.options.requests);
        return turn_away(node, key, Cause::Busy, "", &text);
    }
    if payload.len() == total {
        request.body = permit.hold(payload);
        run(node, &mut table, key, request, handler);
    } else {
        let assembly = Assembly::new(total, &payload, permit, node.options.checks_chunks());
        table.arriving.insert(key, Arriving { request, assembly });
    }
}

fn turn_away(node: &Node, (to, id): Key, cause: Cause, code: &str, message: &str) {
    count(&node.counters.turned_away);
    node.post(to, Kind::Refusal { id, cause, code: code.into(), message: message.into() });
}

pub(super) fn chunk(node: &Arc<Node>, from: NodeId, id: u64, offset: u32, payload: &[u8]) {
    let key = (from, id);
    let mut table = node.served.table.lock();
    let Some(arriving) = table.arriving.get_mut(&key) else { return };
    match arriving.assembly.push(offset as usize, payload) {
        Pushed::More => {}
        Pushed::Repeated => count(&node.counters.chunks_repeated),
        Pushed::Credit(offset) => {
            drop(table);
            node.post(from, Kind::Credit { id, of: Body::Request, offset });
        }
        Pushed::Whole => {
            let Some(Arriving { mut request, assembly }) = table.arriving.remove(&key) else { return };
            let Some(handler) = node.handler(&request.service) else {
                drop(table);
                return turn_away(node, key, Cause::Leaving, "", "it has left");
            };
            request.body = assembly.finish();
            run(node, &mut table, key, request, handler);
        }
        Pushed::Broken => {
            table.arriving.remove(&key);
            drop(table);
            count(&node.counters.transfers_broken);
            turn_away(node, key, Cause::Broken, "", "a part of the request's body is lost");
        }
    }
}

pub(super) fn credit(node: &Node, from: NodeId, id: u64, offset: u32) {
    if let Some(running) = node.served.table.lock().running.get(&(from, id)) {
        running.credit.give(offset);
    }
}

pub(super) fn cancel(node: &Node, from: NodeId, id: u64) {
    let mut table = node.served.table.lock();
    let arriving = table.arriving.remove(&(from, id)).is_some();
    if let Some(running) = table.running.get(&(from, id)) {
        running.cancel.cancel();
        count(&node.counters.cancelled);
    } else if arriving {
        count(&node.counters.cancelled);
    }
}

pub(super) fn tick(node: &Node, gap: Duration) {
    let now = Instant::now();
    let mut remind = Vec::new();
    let mut over = Vec::new();
    let mut table = node.served.table.lock();
    for (key, arriving) in &mut table.arriving {
        if arriving.request.deadline <= now {
            over.push((*key, false));
            continue;
        }
        match arriving.assembly.tick(gap) {
            Ticked::Fine => {}
            Ticked::Remind(offset) => remind.push((*key, offset)),
            Ticked::Over => over.push((*key, true)),
        }
    }
    for (key, _) in &over {
        table.arriving.remove(key);
    }
    table.callers.retain(|_, caller| now.saturating_duration_since(caller.heard_at) < limits::LANE_CALLER_AGE);
    drop(table);
    for (key, tell) in over {
        count(&node.counters.transfers_broken);
        if tell {
            turn_away(node, key, Cause::Broken, "", "the request stopped amid its body");
        }
    }
    for ((to, id), offset) in remind {
        node.post(to, Kind::Credit { id, of: Body::Request, offset });
    }
}

/// A request that is carried out. Dropped without an answer, which only a handler that panics brings about, it tells so.
struct Answering {
    node: Arc<Node>,
    key: Key,
    answered: bool,
}

impl Answering {
    /// Its caller has its answer, or waits for none.
    fn settle(&mut self) {
        self.answered = true;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.node.served.table.lock().running.remove(&self.key);
        if !self.answered {
            let (to, id) = self.key;
            let message = "the handler failed without an answer".into();
            self.node.post(to, Kind::Refusal { id, cause: Cause::Failed, code: ByteString::new(), message });
        }
    }
}

fn run(node: &Arc<Node>, table: &mut Table, key: Key, request: Request, handler: Arc<dyn Handler>) {
    let (cancel, credit) = (node.stop.child_token(), Credit::new());
    let credits = credit.wait();
    table.running.insert(key, Running { cancel: cancel.clone(), credit });
    let mut answering = Answering { node: Arc::clone(node), key, answered: false };
    node.environment.spawn(async move {
        let deadline = request.deadline;
        let node = Arc::clone(&answering.node);
        if Instant::now() >= deadline {
            count(&node.counters.expired);
            answering.settle();
            return;
        }
        count(&node.counters.carried_out);
        let carried_out = async {
            let result = handler.handle(request).await;
            answer(&node, key, result, credits).await;
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = carried_out => {}
            // Nobody waits any more.
            () = tokio::time::sleep_until(deadline) => {}
        }
        answering.settle();
    });
}

async fn answer(node: &Node, (to, id): Key, result: Result<Bytes, Refusal>, credits: watch::Receiver<usize>) {
    let lost = |message: String| Kind::Refusal {
        id,
        cause: Cause::ReplyLost,
        code: ByteString::new(),
        message: message.into(),
    };
    let whole = |body: &Bytes| body.len() <= node.chunk_bytes;
    // Where the caller does not receive any more there is nobody to tell.
    let _ = match result {
        Ok(body) if body.len() > node.options.body_bytes => {
            let text = format!("its reply has {} bytes, and {} are carried", body.len(), node.options.body_bytes);
            send_patiently(node, to, lost(text)).await
        }
        Ok(body) if whole(&body) => {
            send_patiently(node, to, Kind::Reply { id, total: small(body.len()), payload: body }).await
        }
        Ok(body) => match node.environment.memory.try_take(Account::Answers, body.len()) {
            Err(exhausted) => send_patiently(node, to, lost(format!("its reply waits in vain: {exhausted}"))).await,
            Ok(_permit) => {
                let first = Kind::Reply { id, total: small(body.len()), payload: start(&body, node.chunk_bytes) };
                match send_patiently(node, to, first).await {
                    Ok(()) => send_rest(node, to, id, Body::Reply, &body, credits).await,
                    Err(error) => Err(error),
                }
            }
        },
        Err(Refusal { code, message }) => {
            let refusal = Kind::Refusal { id, cause: Cause::Handler, code: cut(&code), message: cut(&message) };
            send_patiently(node, to, refusal).await
        }
    };
}

fn cut(text: &ByteString) -> ByteString {
    text[..text.floor_char_boundary(limits::LANE_REFUSAL_BYTES)].into()
}
