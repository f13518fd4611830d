//! Several processes of a cluster in one, on one broker in memory, whose connections and lane can be cut.

mod faults;
mod lanes;
mod moves;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::peers::{CallError, Handler};
use super::*;
use crate::environment::Clock;
use crate::slot::{Command, CommandId, CommitError, Expect};
use crate::testing::{Link, MemoryBroker, MemoryLog, RuntimeClock, SeededRandom};

type Handlers = BTreeMap<NodeId, Arc<dyn Handler>>;

/// The lane of all nodes: calls arrive at once, and members are known at once.
#[derive(Clone, Debug, Default)]
struct Lanes(Arc<Mutex<Handlers>>);

#[derive(Debug)]
struct Lane {
    node: NodeId,
    lanes: Lanes,
    /// Whether answers are lost.
    deaf: Arc<Mutex<bool>>,
}

impl Peers for Lane {
    fn node(&self) -> NodeId {
        self.node
    }

    fn members(&self) -> Vec<NodeId> {
        self.lanes.0.lock().keys().copied().collect()
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        self.lanes.0.lock().insert(self.node, handler);
    }

    fn call(
        &self,
        node: NodeId,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, std::result::Result<Bytes, CallError>> {
        Box::pin(async move {
            let handler = self.lanes.0.lock().get(&node).cloned();
            let handler = handler.ok_or_else(|| CallError::NotMade { reason: "nobody is there".to_owned() })?;
            let unknown = || CallError::NotAnswered { reason: "no answer in time".to_owned() };
            let answer = tokio::time::timeout(timeout, handler.answer(body)).await.map_err(|_| unknown())?;
            if *self.deaf.lock() { Err(unknown()) } else { Ok(answer) }
        })
    }
}

/// A process that died, before the others know.
#[derive(Debug)]
struct Silent;

impl Handler for Silent {
    fn answer(&self, _: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(std::future::pending())
    }
}

/// What a tenant was told, and what it holds: it never works in a slot that it was not given.
#[derive(Debug, Default)]
struct Worker {
    told: Mutex<Vec<String>>,
    journals: Mutex<BTreeMap<u32, Journal>>,
}

impl Tenant for Worker {
    fn acquired(&self, journal: Journal) -> BoxFuture<'_, ()> {
        self.told.lock().push(format!("acquired {}", journal.slot()));
        let before = self.journals.lock().insert(journal.slot(), journal);
        assert!(before.is_none(), "acquired twice");
        Box::pin(async {})
    }

    fn releasing(&self, slot: u32) -> BoxFuture<'_, ()> {
        self.told.lock().push(format!("releasing {slot}"));
        assert!(self.journals.lock().contains_key(&slot));
        Box::pin(sleep(Duration::from_millis(100)))
    }

    fn lost(&self, slot: u32) {
        self.told.lock().push(format!("lost {slot}"));
        assert!(self.journals.lock().remove(&slot).is_some(), "lost what was not acquired");
    }
}

struct Node {
    id: NodeId,
    claims: Arc<Claims>,
    log: Arc<MemoryLog>,
    clock: Arc<RuntimeClock>,
    environment: Environment,
    worker: Arc<Worker>,
    /// Whether it hears no answers.
    deaf: Arc<Mutex<bool>>,
}

struct Cluster {
    broker: MemoryBroker,
    lanes: Lanes,
    nodes: Vec<Node>,
    began: u64,
}

impl Cluster {
    async fn of(slots: u32, nodes: usize) -> Self {
        let mut cluster =
            Self { broker: MemoryBroker::shared(slots), lanes: Lanes::default(), nodes: Vec::new(), began: 0 };
        for _ in 0..nodes {
            cluster.start().await;
        }
        cluster
    }

    async fn start(&mut self) {
        self.start_with(Options::default()).await;
    }

    async fn start_with(&mut self, options: Options) {
        self.began += 1;
        let id = NodeId(self.began << 16);
        let clock = Arc::<RuntimeClock>::default();
        let environment =
            Environment::new(Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(SeededRandom::new(self.began)));
        let (log, deaf) = (self.broker.client(), Arc::default());
        let lane = Lane { node: id, lanes: self.lanes.clone(), deaf: Arc::clone(&deaf) };
        let joining = Claims::join(Arc::clone(&log) as _, lane, environment.clone(), options);
        let claims = joining.await.unwrap();
        let worker = Arc::<Worker>::default();
        claims.begin(Arc::clone(&worker) as Arc<dyn Tenant>).await;
        self.nodes.push(Node { id, claims, log, clock, environment, worker, deaf });
    }

    /// The process dies: nothing of it is heard any more, and the others learn that a moment later.
    async fn kill(&mut self, index: usize) -> NodeId {
        let node = self.nodes.remove(index);
        node.log.kill();
        let lanes = self.lanes.clone();
        let id = node.id;
        lanes.0.lock().insert(id, Arc::new(Silent));
        node.environment.spawn(async move {
            sleep(Duration::from_secs(3)).await;
            lanes.0.lock().remove(&id);
        });
        drop(node.claims);
        id
    }

    fn cut_lane(&self, index: usize) -> Arc<dyn Handler> {
        self.lanes.0.lock().remove(&self.nodes[index].id).unwrap()
    }

    /// How many slots each node owns by its own word, those in which it works.
    fn loads(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.worker.journals.lock().len()).collect()
    }

    /// Waits until every slot has exactly one owner, which says so, and on which all nodes agree; gives how long it took.
    async fn settled(&self) -> Duration {
        let began = Instant::now();
        loop {
            if self.agreed() {
                return began.elapsed();
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{:#?}", self.views());
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn views(&self) -> Vec<(NodeId, Vec<Ownership>)> {
        self.nodes.iter().map(|node| (node.id, node.claims.owners())).collect()
    }

    fn agreed(&self) -> bool {
        let views = self.views();
        let first = &views[0].1;
        first.iter().enumerate().all(|(slot, expected)| {
            let Some(owner) = expected.owner.filter(|owner| self.nodes.iter().any(|node| node.id == *owner)) else {
                return false;
            };
            views.iter().all(|(node, view)| {
                let seen = view[slot];
                let works = slot == 0 && view.len() > 1 || {
                    let index = self.nodes.iter().position(|other| other.id == *node).unwrap();
                    self.nodes[index].worker.journals.lock().contains_key(&(slot as u32)) == seen.here
                };
                (seen.owner, seen.epoch) == (Some(owner), expected.epoch) && seen.here == (*node == owner) && works
            })
        })
    }

    fn epochs(&self) -> Vec<u64> {
        self.nodes[0].claims.owners().iter().map(|ownership| ownership.epoch).collect()
    }

    /// Never two that may act in a slot, at any moment from now on; looked at every 5 ms.
    async fn watch(&self, duration: Duration) {
        let began = Instant::now();
        while began.elapsed() < duration {
            self.one_holder();
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn one_holder(&self) {
        let mut holders: BTreeMap<u32, NodeId> = BTreeMap::new();
        for node in &self.nodes {
            for ownership in node.claims.owners().iter().filter(|ownership| ownership.here) {
                let other = holders.insert(ownership.slot, node.id);
                assert_eq!(other, None, "slot {} may be acted in by two", ownership.slot);
            }
        }
    }
}

fn put(key: &str, expect: Expect, value: &str) -> Command {
    Command::new().put(key.to_owned(), expect, value.to_owned())
}
