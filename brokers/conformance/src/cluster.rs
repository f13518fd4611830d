//! Several processes of the product on one broker, each on a connection of its own, in one process: they share nothing but the
//! broker and a lane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_backbone::claim::peers::{CallError, Handler};
use tidegate_backbone::claim::{Claims, Options, Ownership, Peers, Tenant};
use tidegate_backbone::request::{self, Hub, MemberInfo, Requests};
use tidegate_backbone::slot::{Journal, SlotHandle};
use tidegate_backbone::{BoxFuture, Clock, Environment, NodeId, PartitionLog};

use crate::connection::{Connection, Link};
use crate::expect::{Failure, Outcome, holds};
use crate::fixture::Fixture;

/// Against hanging alone.
const HANG: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(10);

/// The machine's clock, which can be set, and which can have been suspended.
#[derive(Debug)]
pub(crate) struct Jumping {
    inner: Arc<dyn Clock>,
    slept_ms: AtomicU64,
    wall_ms: AtomicI64,
}

impl Jumping {
    /// The machine was suspended for that long.
    pub(crate) fn sleep(&self, duration: Duration) {
        self.slept_ms.fetch_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Somebody moved the wall clock by so much.
    pub(crate) fn set(&self, by_ms: i64) {
        self.wall_ms.store(by_ms, Ordering::SeqCst);
    }
}

impl Clock for Jumping {
    fn unix_milliseconds(&self) -> u64 {
        self.inner.unix_milliseconds().saturating_add_signed(self.wall_ms.load(Ordering::SeqCst))
    }

    fn since_boot(&self) -> Duration {
        self.inner.since_boot() + Duration::from_millis(self.slept_ms.load(Ordering::SeqCst))
    }
}

/// Nodes that others cannot see or reach, though they run.
type Hidden = Arc<Mutex<BTreeSet<NodeId>>>;

#[derive(Debug)]
struct Lane {
    requests: Requests,
    hidden: Hidden,
}

impl Peers for Lane {
    fn node(&self) -> NodeId {
        self.requests.node()
    }

    fn members(&self) -> Vec<NodeId> {
        let hidden = self.hidden.lock();
        let all = Peers::members(&self.requests);
        all.into_iter().filter(|node| *node == self.requests.node() || !hidden.contains(node)).collect()
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        Peers::serve(&self.requests, handler);
    }

    fn call(&self, node: NodeId, body: Bytes, timeout: Duration) -> BoxFuture<'_, Result<Bytes, CallError>> {
        let apart = {
            let hidden = self.hidden.lock();
            hidden.contains(&node) || hidden.contains(&self.requests.node())
        };
        if apart {
            return Box::pin(async { Err(CallError::NotMade { reason: "the lane is cut".to_owned() }) });
        }
        Peers::call(&self.requests, node, body, timeout)
    }
}

/// What a process owns, and what it was told, in order.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(crate) journals: Mutex<BTreeMap<u32, Journal>>,
    pub(crate) lost: Mutex<Vec<u32>>,
}

impl Tenant for Worker {
    fn acquired(&self, journal: Journal) -> BoxFuture<'_, ()> {
        self.journals.lock().insert(journal.slot(), journal);
        Box::pin(async {})
    }

    fn releasing(&self, _slot: u32) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn lost(&self, slot: u32) {
        self.journals.lock().remove(&slot);
        self.lost.lock().push(slot);
    }
}

/// One process.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) claims: Arc<Claims>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) clock: Arc<Jumping>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) environment: Environment,
    requests: Requests,
}

impl Node {
    /// The journal of a slot that it was given.
    pub(crate) fn journal(&self, slot: u32) -> Option<Journal> {
        self.worker.journals.lock().get(&slot).cloned()
    }

    pub(crate) fn slot(&self, slot: u32) -> Arc<dyn SlotHandle> {
        self.claims.slot(slot)
    }

    /// Whether it may act in any slot at this moment.
    pub(crate) fn acts(&self) -> bool {
        self.claims.owners().iter().any(|ownership| ownership.here)
    }

    /// Ends as a process does that is asked to.
    pub(crate) async fn leave(&self) {
        self.claims.leave().await;
        self.requests.leave().await;
    }
}

/// See the module.
pub(crate) struct Cluster {
    fixture: Arc<dyn Fixture>,
    hub: Hub,
    hidden: Hidden,
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// So many processes, each slot of which has an owner.
    pub(crate) async fn start(fixture: &Arc<dyn Fixture>, nodes: usize) -> Result<Self, Failure> {
        let (hub, hidden) = (Hub::default(), Hidden::default());
        let mut cluster = Self { fixture: Arc::clone(fixture), hub, hidden, nodes: Vec::new() };
        for _ in 0..nodes {
            cluster.join().await?;
        }
        cluster.settled().await?;
        Ok(cluster)
    }

    /// One process more.
    pub(crate) async fn join(&mut self) -> Outcome {
        let system = Environment::system();
        let clock = Arc::new(Jumping { inner: system.clock, slept_ms: AtomicU64::new(0), wall_ms: AtomicI64::new(0) });
        let environment = Environment::new(Arc::clone(&clock) as Arc<dyn Clock>, system.random);
        let connection = Connection::new(self.fixture.open(&environment).await?);
        let lane = self.hub.lane();
        let requests = Requests::open(lane, MemberInfo::default(), &environment, request::Options::default()).await?;
        let peers = Lane { requests: requests.clone(), hidden: Arc::clone(&self.hidden) };
        let log = Arc::clone(&connection) as Arc<dyn PartitionLog>;
        let claims = Claims::join(log, peers, environment.clone(), Options::default()).await?;
        let worker = Arc::<Worker>::default();
        claims.begin(Arc::clone(&worker) as Arc<dyn Tenant>).await;
        let id = requests.node();
        self.nodes.push(Node { id, claims, connection, clock, worker, environment, requests });
        Ok(())
    }

    /// A process dies at this moment: nothing of it is heard any more.
    pub(crate) fn kill(&mut self, index: usize) -> NodeId {
        let Node { id, claims, connection, environment, requests, .. } = self.nodes.remove(index);
        connection.set(Link::Dead);
        drop((claims, requests));
        // What runs for it ends; it can do nothing any more.
        drop(Environment::system().spawn(async move { environment.stop(HANG).await }));
        id
    }

    /// Others do not see the process any more, though it runs, or see it again.
    pub(crate) fn hide(&self, index: usize, hide: bool) {
        let mut hidden = self.hidden.lock();
        if hide {
            hidden.insert(self.nodes[index].id)
        } else {
            hidden.remove(&self.nodes[index].id)
        };
    }

    /// The process that owns the slot, by the word of the first one.
    pub(crate) fn owner(&self, slot: u32) -> Option<usize> {
        let owner = self.nodes[0].claims.owners()[slot as usize].owner;
        self.nodes.iter().position(|node| Some(node.id) == owner)
    }

    pub(crate) fn epochs(&self) -> Vec<u64> {
        self.nodes[0].claims.owners().iter().map(|ownership| ownership.epoch).collect()
    }

    /// Owners by slot, as the first process sees them.
    pub(crate) fn owners(&self) -> Vec<Ownership> {
        self.nodes[0].claims.owners()
    }

    /// Waits until every slot has one owner, which says so itself, and of which every process knows, and none has two more
    /// than another.
    pub(crate) async fn settled(&self) -> Outcome {
        let settled = async {
            loop {
                self.one_actor()?;
                if self.agreed() && self.balanced() {
                    return Ok(());
                }
                tokio::time::sleep(STEP).await;
            }
        };
        match tokio::time::timeout(HANG, settled).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let views: Vec<_> = self.nodes.iter().map(|node| (node.id, node.claims.owners())).collect();
                Err(Failure::late(format!("expected one owner of each slot, known to all; seen {views:?}")))
            }
        }
    }

    /// Waits, and looks all the time whether two may act in one slot.
    pub(crate) async fn watch(&self, duration: Duration) -> Outcome {
        let watched = async {
            loop {
                self.one_actor()?;
                tokio::time::sleep(STEP).await;
            }
        };
        tokio::time::timeout(duration, watched).await.unwrap_or(Ok(()))
    }

    /// Waits until that holds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) -> Outcome {
        let waited = async {
            while !condition(self) {
                self.one_actor()?;
                tokio::time::sleep(STEP).await;
            }
            Ok(())
        };
        tokio::time::timeout(HANG, waited).await.unwrap_or_else(|_| Err(Failure::late(format!("expected that {what}"))))
    }

    fn one_actor(&self) -> Outcome {
        let mut actors: BTreeMap<u32, NodeId> = BTreeMap::new();
        for node in &self.nodes {
            for ownership in node.claims.owners().iter().filter(|ownership| ownership.here) {
                let other = actors.insert(ownership.slot, node.id);
                // Both were asked one after the other: the first may have lost the slot between.
                let again = other.and_then(|other| self.nodes.iter().find(|node| node.id == other));
                let both = again.is_some_and(|node| node.claims.owners()[ownership.slot as usize].here);
                holds("one process at most may act in a slot", !both, (ownership.slot, node.id, other))?;
            }
        }
        Ok(())
    }

    fn agreed(&self) -> bool {
        self.owners().iter().all(|expected| {
            let alive = self.nodes.iter().any(|node| Some(node.id) == expected.owner);
            alive
                && self.nodes.iter().all(|node| {
                    let seen = node.claims.owners()[expected.slot as usize];
                    let same = (seen.owner, seen.epoch) == (expected.owner, expected.epoch);
                    let works =
                        self.owners().len() > 1 && seen.slot == 0 || node.journal(seen.slot).is_some() == seen.here;
                    same && works && seen.here == (Some(node.id) == expected.owner)
                })
        })
    }

    fn balanced(&self) -> bool {
        let loads: Vec<usize> = self.nodes.iter().map(|node| node.worker.journals.lock().len()).collect();
        loads.iter().max().zip(loads.iter().min()).is_some_and(|(most, least)| most - least <= 1)
    }

    /// Ends all processes.
    pub(crate) async fn stop(self) {
        for node in self.nodes {
            node.connection.set(Link::Up);
            node.leave().await;
            node.environment.stop(HANG).await;
            node.connection.close().await;
        }
    }
}
