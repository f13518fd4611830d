//! One node on its lane: opening, what it receives, what it tells of itself, and leaving.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use tidegate_schemas::limits;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::calls::{self, Calls};
use super::counters::{Counters, count};
use super::presence::Presence;
use super::served::{self, Served};
use super::wire::{ALL, Body, Kind, Message};
use super::{Handler, MemberInfo, Options};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::lane::{Inbox, Lane, NodeId};
use crate::log::BoxFuture;

/// Smaller messages than this would make a chunk a waste.
const CHUNK_BYTES_MIN: usize = 4 * 1024;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) environment: Environment,
    pub(super) options: Options,
    pub(super) chunk_bytes: usize,
    pub(super) presence: Presence,
    pub(super) calls: Calls,
    pub(super) served: Served,
    pub(super) counters: Counters,
    /// Ends everything that runs for this node.
    pub(super) stop: CancellationToken,
    pub(super) leaving: AtomicBool,
    lane: Arc<dyn Lane>,
    services: ArcSwap<BTreeMap<&'static str, Arc<dyn Handler>>>,
    beat_now: Notify,
}

impl fmt::Debug for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Node").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Ends the node's tasks when its last owner is gone.
#[derive(Debug)]
pub(super) struct Stopper(CancellationToken);

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Node {
    pub(super) async fn open(
        lane: Arc<dyn Lane>,
        info: MemberInfo,
        environment: &Environment,
        options: Options,
    ) -> Result<(Arc<Self>, Stopper)> {
        let message_bytes = lane.message_bytes_max();
        let chunk_bytes = limits::LANE_CHUNK_BYTES.min(message_bytes.saturating_sub(limits::LANE_HEADER_BYTES));
        if chunk_bytes < CHUNK_BYTES_MIN {
            let text = format!(
                "the broker takes messages of at most {message_bytes} bytes between gateways; allow {} or more",
                CHUNK_BYTES_MIN + limits::LANE_HEADER_BYTES
            );
            return Err(Error::new(ErrorKind::Misconfigured, text));
        }
        let id = draw(environment);
        let stop = environment.stopping().child_token();
        let stopper = Stopper(stop.clone());
        let late = |what: &str| {
            let text = format!("{what} within {} ms", options.ask_timeout.as_millis());
            Error::new(ErrorKind::Unavailable, text)
        };
        let receive = tokio::time::timeout(options.ask_timeout, lane.receive(id)).await;
        let inbox = receive.map_err(|_| late("the broker did not let this node receive"))??;
        let node = Arc::new(Self {
            id,
            environment: environment.clone(),
            chunk_bytes,
            presence: Presence::new(id, info, options.beat_interval, options.gone_after),
            calls: Calls::new(options.calls),
            served: Served::default(),
            counters: Counters::default(),
            stop,
            leaving: AtomicBool::new(false),
            lane,
            services: ArcSwap::default(),
            beat_now: Notify::new(),
            options: options.clone(),
        });
        environment.spawn(receive_all(Arc::clone(&node), inbox));
        let heard = tokio::time::timeout(options.ask_timeout, node.ask()).await;
        heard.map_err(|_| late("this node did not hear itself on the broker"))?;
        node.listen().await;
        environment.spawn(keep_time(Arc::clone(&node)));
        Ok((node, stopper))
    }

    /// Asks who is there, until this node hears itself.
    async fn ask(&self) {
        while !self.presence.hears() {
            let ask = self.broadcast(Kind::Ask(self.presence.beat(self.environment.clock.since_boot())));
            let heard = async {
                // Where it could not be sent it is sent again.
                let _ = ask.await;
                self.beat_now.notified().await;
            };
            let _ = tokio::time::timeout(limits::LANE_ASK_INTERVAL, heard).await;
        }
    }

    /// Waits for the answers of others, until nobody new is heard of. It is the wait that is bounded and not the success: a
    /// cluster in which nodes come and go is never quiet.
    async fn listen(&self) {
        let mut members = self.presence.watch();
        let quiet = async { while tokio::time::timeout(self.options.ask_quiet, members.changed()).await.is_ok() {} };
        let _ = tokio::time::timeout(10 * self.options.ask_quiet, quiet).await;
    }

    pub(super) fn serve(&self, service: &'static str, handler: Arc<dyn Handler>) {
        self.services.rcu(|services| {
            let mut services = BTreeMap::clone(services);
            services.insert(service, Arc::clone(&handler));
            services
        });
        self.offer();
    }

    fn offer(&self) {
        let services = self.services.load();
        let leaving = self.leaving.load(Ordering::SeqCst);
        let names = services.keys().filter(|_| !leaving).map(|name| (*name).into());
        self.presence.offer(names.collect());
        self.beat_now.notify_one();
    }

    pub(super) fn handler(&self, service: &str) -> Option<Arc<dyn Handler>> {
        self.services.load().get(service).cloned()
    }

    pub(super) async fn leave(&self) {
        if self.leaving.swap(true, Ordering::SeqCst) {
            return;
        }
        self.offer();
        let idle = async {
            while !self.served.is_idle() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(self.options.leave_grace, idle).await;
        let goodbye = self.broadcast(Kind::Goodbye);
        let _ = tokio::time::timeout(self.options.beat_interval, goodbye).await;
        self.stop.cancel();
        self.services.store(Arc::default());
    }

    pub(super) fn encode(&self, to: NodeId, kind: Kind) -> Bytes {
        Message { from: self.id, to, kind }.encode()
    }

    /// Hands a message to the lane: it is queued when this returns.
    pub(super) fn send(&self, to: NodeId, message: Bytes) -> BoxFuture<'static, Result<()>> {
        count(&self.counters.messages_sent);
        self.lane.send(to, message)
    }

    /// The same for what is not worth waiting for: its loss is made up for by a deadline or a repetition.
    pub(super) fn post(&self, to: NodeId, kind: Kind) {
        drop(self.send(to, self.encode(to, kind)).now_or_never());
    }

    fn broadcast(&self, kind: Kind) -> BoxFuture<'static, Result<()>> {
        count(&self.counters.messages_sent);
        self.lane.broadcast(self.encode(ALL, kind))
    }

    fn beat(&self) {
        let beat = self.presence.beat(self.environment.clock.since_boot());
        drop(self.broadcast(Kind::Beat(beat)).now_or_never());
    }

    fn received(self: &Arc<Self>, bytes: &Bytes) {
        count(&self.counters.messages_received);
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                count(&self.counters.malformed);
                tracing::debug!(%error, "a message on the lane is dropped");
                return;
            }
        };
        let Message { from, to, kind } = message;
        if to != self.id && to != ALL {
            count(&self.counters.foreign);
            return;
        }
        match kind {
            Kind::Beat(beat) => self.presence.heard(from, beat, self.environment.clock.since_boot()),
            Kind::Ask(beat) => {
                self.presence.heard(from, beat, self.environment.clock.since_boot());
                if from == self.id {
                    // Opening waits for that.
                    self.beat_now.notify_one();
                } else {
                    self.post(from, Kind::Beat(self.presence.beat(self.environment.clock.since_boot())));
                }
            }
            Kind::Goodbye => {
                if self.presence.left(from) {
                    calls::gone(self, &[from]);
                }
            }
            Kind::Request(head, payload) => served::request(self, from, head, payload),
            Kind::Reply { id, total, payload } => calls::reply(self, from, id, total, payload),
            Kind::Refusal { id, cause, code, message } => calls::refusal(self, from, id, cause, code, message),
            Kind::Chunk { id, of: Body::Request, offset, payload } => served::chunk(self, from, id, offset, &payload),
            Kind::Chunk { id, of: Body::Reply, offset, payload } => calls::chunk(self, from, id, offset, &payload),
            Kind::Credit { id, of: Body::Request, offset } => calls::credit(self, from, id, offset),
            Kind::Credit { id, of: Body::Reply, offset } => served::credit(self, from, id, offset),
            Kind::Cancel { id } => served::cancel(self, from, id),
        }
    }
}

/// Random, with room below for whoever counts attempts of a node.
fn draw(environment: &Environment) -> NodeId {
    loop {
        let id = NodeId(environment.random.bits() & !0xffff);
        if id != ALL {
            return id;
        }
    }
}

async fn receive_all(node: Arc<Node>, mut inbox: Box<dyn Inbox>) {
    loop {
        tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            message = inbox.next() => match message {
                Some(message) => node.received(&message),
                None => break,
            },
        }
    }
    // The adapter is closed: nothing will arrive any more.
    node.stop.cancel();
}

async fn keep_time(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(limits::LANE_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last_tick, mut last_beat) = (Instant::now(), None::<Instant>);
    loop {
        let now = tokio::select! {
            biased;
            () = node.stop.cancelled() => return,
            () = node.beat_now.notified() => {
                node.beat();
                last_beat = Some(Instant::now());
                continue;
            }
            now = ticks.tick() => now,
        };
        let gap = now.saturating_duration_since(last_tick);
        last_tick = now;
        calls::gone(&node, &node.presence.tick(gap));
        calls::tick(&node, gap);
        served::tick(&node, gap);
        // Half a tick early rather than late.
        let due =
            |last: Instant| now.saturating_duration_since(last) + limits::LANE_TICK / 2 >= node.options.beat_interval;
        if last_beat.is_none_or(due) {
            node.beat();
            last_beat = Some(now);
        }
    }
}
