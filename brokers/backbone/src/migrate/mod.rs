//! A move from one backbone to another while publishing goes on: `docs/migration.md` is what users are told.
//!
//! | promise | by |
//! |---|---|
//! | nothing acknowledged is lost | what counts as copied was read back from the new backbone (`copy`); publishing is held for the moment of the move, and goes to the new one after it |
//! | keys keep their order | partitions keep their numbers and their order; what is held is written in the order in which it came |
//! | subscriptions go on where they were | deliveries are ended first, and where each stands is written to the new slots, with the positions of the same events there ([`crate::consume`]) |
//! | one backbone counts | the move is one commit in slot 0 of the old one; gateways on the new one work when that was made, and not before |
//! | it may be broken off anywhere | what was copied is noted in slot 0; another gateway, or the same after its restart, goes on from there |
//!
//! Not promised: that positions stay what they were; that an event's time of appending does (it is that of the copy); that what
//! others than gateways write to the old broker after the move keeps its order (it is passed on as long as a gateway runs there).
//!
//! # What is written where
//!
//! | key, in slot 0 | value | says |
//! |---|---|---|
//! | `migration/state` of the old backbone | `State` | how it stands, where to, and who does the work |
//! | `migration/copied/TOPIC/PARTITION` of the old one | `Copied` | how far a partition was read back, with count and hash |
//! | `migration/frozen` of the old one | empty | the catalogue does not change: every change of it expects that this is not there |
//! | `migration/incoming` of the new one | `Incoming` | where it comes from; gateways work there when it says `done` |
//!
//! Values are JSON objects with a version; unknown versions and members are refused.
//!
//! # Phases
//!
//! | phase | what is done | ends |
//! |---|---|---|
//! | `copying` | the coordinator claims every slot of the new backbone, creates the topics, copies every partition, round after round | when a round has found little that is new |
//! | | and every gateway says that it reaches the new backbone: nothing is held for one that does not | |
//! | `switching` | every gateway ends its deliveries, writes down where they are, and holds what is published; the rest is copied, the slots are written | by one commit, or back to `copying` where a gateway does not answer in time |
//! | `moved` | gateways publish to the new backbone; the new one is told that it may be used; what comes late to the old one is passed on | when the last gateway of the old backbone is stopped |
//!
//! A coordinator that is gone is followed by whoever owns slot 0, but where the new backbone is an embedded log: that one is
//! in the process of the gateway that was asked. While it is not known who coordinates, `switching` is given up: the commit that
//! moves was not made then, and cannot be made any more, because it expects the state as it was.

mod copy;
mod digest;
mod entry;
mod follow;
mod mover;
mod positions;
mod seat;
mod suspend;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytestring::ByteString;
use tidegate_routing::TopicName;
use tracing::info;

pub use self::entry::Phase;

use self::entry::{COPIED, Copied, Incoming, State};
use self::suspend::Suspension;
use crate::bridge::Bridges;
use crate::catalogue::{Version, read, write};
use crate::claim::{Claims, Tenant};
use crate::consume::Consume;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::lane::{Lane, NodeId};
use crate::log::{BoxFuture, LogId, PartitionLog};
use crate::request::Requests;
use crate::slot::{Command, CommitError, Expect, SlotHandle};

const STATE: &str = "migration/state";
const INCOMING: &str = "migration/incoming";
/// While it is there, every change of the catalogue is refused.
pub(crate) const FROZEN: &str = "migration/frozen";

/// A backbone that can be moved to.
#[derive(Clone)]
pub struct Target {
    /// Its logs.
    pub log: Arc<dyn PartitionLog>,
    /// How gateways on it reach each other, where it is for several.
    pub lane: Option<Arc<dyn Lane>>,
    /// What and where it is, without secrets.
    pub name: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Opens the backbones that this gateway knows beside its own.
pub trait Targets: Send + Sync + fmt::Debug {
    /// Opens the one of that name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where this gateway knows none, and whatever its adapter says.
    fn open<'a>(&'a self, name: &'a str, environment: &'a Environment) -> BoxFuture<'a, Result<Target>>;
}

/// What a migration needs of a gateway.
#[derive(Debug)]
pub struct Parts {
    /// The backbone, whose topics can be steered elsewhere.
    pub bridges: Arc<Bridges>,
    /// Its slots.
    pub claims: Arc<Claims>,
    /// How other gateways are asked, where there can be others.
    pub requests: Option<Requests>,
    /// What is delivered here.
    pub consume: Arc<Consume>,
    /// What works in the slots that are owned here.
    pub tenant: Arc<dyn Tenant>,
    /// Where to.
    pub targets: Arc<dyn Targets>,
    /// Where this gateway serves HTTP.
    pub http: String,
    /// Where it runs.
    pub environment: Environment,
}

/// Why a migration was not begun, or not ended.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// One is under way, to somewhere else or on another gateway.
    #[error("a migration to {to} is under way, carried out by the gateway at {coordinator}; it stands at `{}`", phase.name())]
    Running {
        /// Where to.
        to: ByteString,
        /// By whom.
        coordinator: String,
        /// How it stands.
        phase: Phase,
    },
    /// The backbone was moved.
    #[error("this backbone was moved to {to} ({target}); start gateways there")]
    Moved {
        /// The broker's name.
        to: ByteString,
        /// Where it is.
        target: String,
    },
    /// There is none.
    #[error("there is no migration under way")]
    None,
    /// Topics of somebody else's on this backbone cannot be taken along.
    #[error(
        "{} attached to this backbone and not ours to move: {}; declare the backbone as a `Broker`, attach them there (`attach: {{name: …, \
         broker: …}}`), or delete them here", if topics.len() == 1 { "a topic is" } else { "topics are" },
        topics.iter().map(TopicName::as_str).collect::<Vec<_>>().join(", ")
    )]
    Attached {
        /// Which.
        topics: Vec<TopicName>,
    },
    /// A broker said so.
    #[error(transparent)]
    Broker(#[from] Error),
    /// Slot 0 could not be changed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// How a partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: u32,
    /// Events that were read back from the new backbone.
    pub events: u64,
    /// SHA-256 over the digests of all of them in their order, the same of both sides.
    pub sha256: String,
    /// Events that came to the old backbone after the move and were passed on.
    pub late: u64,
}

/// How a migration stands. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The broker's name.
    pub to: ByteString,
    /// What and where it is.
    pub target: String,
    /// How far it is.
    pub phase: Phase,
    /// Whether gateways on the new backbone work.
    pub done: bool,
    /// Where the gateway serves HTTP that carries it out.
    pub coordinator: String,
    /// When it was begun.
    pub started_at: u64,
    /// When the new backbone became the one that counts.
    pub moved_at: Option<u64>,
    /// Events that were not copied when it was last looked.
    pub behind: Option<u64>,
    /// How often it was tried to switch.
    pub attempts: u64,
    /// What went wrong last.
    pub error: Option<String>,
    /// Every partition that was begun, by topic and number.
    pub partitions: Vec<PartitionStatus>,
}

/// The part of one gateway in a migration. Clones are the same.
#[derive(Clone, Debug)]
pub struct Migration {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    slot0: Arc<dyn SlotHandle>,
    suspension: Arc<Suspension>,
    /// The target while it is open, under the name that it was asked for.
    target: tokio::sync::Mutex<Option<(ByteString, Target)>>,
    /// The attempt to switch for which this gateway holds its work; 0 for none.
    held: AtomicU64,
    /// Why this gateway could not go along, where it could not when it last looked.
    unprepared: parking_lot::Mutex<Option<String>>,
    /// Why it does not hold its work, where it could not.
    refused: parking_lot::Mutex<String>,
    /// Whether the work is done here.
    coordinates: AtomicBool,
}

/// Where the migration into a backbone comes from that is not at its end, as slot 0 of it says.
///
/// # Errors
/// [`ErrorKind::DataLoss`] where the entry cannot be read.
pub fn incoming(slot0: &dyn SlotHandle) -> Result<Option<String>> {
    let Some(head) = slot0.get(INCOMING.as_bytes()) else { return Ok(None) };
    let incoming: Incoming = read(INCOMING.as_bytes(), &head.value)?;
    Ok((!incoming.done).then_some(incoming.from))
}

impl Migration {
    /// The part of a gateway that does not work in any slot yet: [`Migration::tenant`] is to do that.
    pub fn new(parts: Parts) -> Self {
        let suspension = Arc::new(Suspension::new(Arc::clone(&parts.consume), Arc::clone(&parts.tenant)));
        let shared = Shared {
            slot0: parts.claims.slot(0),
            parts,
            suspension,
            target: tokio::sync::Mutex::default(),
            held: AtomicU64::new(0),
            unprepared: parking_lot::Mutex::new(Some("it has not looked yet".to_owned())),
            refused: parking_lot::Mutex::default(),
            coordinates: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What works in the slots, unless the backbone is being moved.
    pub fn tenant(&self) -> Arc<dyn Tenant> {
        Arc::clone(&self.shared.suspension) as _
    }

    /// Begins a migration to a broker that is declared under that name, or goes on with one that has failed. It is carried out
    /// by this gateway.
    ///
    /// # Errors
    /// See [`MigrateError`].
    pub async fn start(&self, to: &str) -> std::result::Result<Status, MigrateError> {
        let shared = &self.shared;
        let before = shared.state()?;
        if let Some((state, _)) = &before {
            if state.phase == Phase::Moved {
                return Err(MigrateError::Moved { to: state.to.clone(), target: state.target.clone() });
            }
            let idle = state.phase == Phase::Failed || !shared.is_there(NodeId(state.coordinator));
            if state.to != to || !idle {
                let (to, coordinator) = (state.to.clone(), state.coordinator_http.clone());
                return Err(MigrateError::Running { to, coordinator, phase: state.phase });
            }
        }
        let catalogue = shared.parts.consume.catalogue();
        let topics: Vec<TopicName> = {
            let view = catalogue.view();
            let ours =
                view.topics.values().filter(|topic| topic.spec.attached.is_some() && topic.spec.broker.is_none());
            let mut names: Vec<TopicName> = ours.map(|topic| topic.spec.name.clone()).collect();
            names.sort_unstable();
            names
        };
        if !topics.is_empty() {
            return Err(MigrateError::Attached { topics });
        }
        let target = shared.target(to).await?;
        let environment = &shared.parts.environment;
        let expect = before.as_ref().map_or(Expect::Absent, |(_, revision)| Expect::Revision(*revision));
        let state = State {
            v: Version,
            id: before.as_ref().map_or_else(|| environment.random.bits(), |(state, _)| state.id),
            to: to.into(),
            target: target.name.clone(),
            target_exclusive: target.log.capability().exclusive,
            phase: Phase::Copying,
            attempt: before.as_ref().map_or(0, |(state, _)| state.attempt),
            coordinator: shared.node().0,
            coordinator_http: shared.parts.http.clone(),
            started_at: before
                .as_ref()
                .map_or_else(|| environment.clock.unix_milliseconds(), |(state, _)| state.started_at),
            moved_at: None,
            done: false,
            behind: None,
            error: None,
        };
        let command = Command::new().put(STATE, expect, write(&state)).delete(FROZEN, Expect::Any);
        shared.slot0.commit(command).await?;
        info!(to, target = target.name, "a migration of the backbone begins");
        shared.coordinate();
        self.status()?.ok_or(MigrateError::None)
    }

    /// Gives a migration up that has not come to its end. What was copied stays on the other backbone, and is found there when
    /// it is begun again.
    ///
    /// # Errors
    /// [`MigrateError::None`], [`MigrateError::Moved`], and [`MigrateError::Running`] where it is just switching.
    pub async fn cancel(&self) -> std::result::Result<(), MigrateError> {
        let shared = &self.shared;
        let Some((state, revision)) = shared.state()? else { return Err(MigrateError::None) };
        match state.phase {
            Phase::Moved => return Err(MigrateError::Moved { to: state.to, target: state.target }),
            Phase::Switching => {
                let State { to, coordinator_http: coordinator, phase, .. } = state;
                return Err(MigrateError::Running { to, coordinator, phase });
            }
            Phase::Copying | Phase::Failed => {}
        }
        // First, so that whoever does the work sees that it is over, and writes nothing more of it.
        shared.slot0.commit(Command::new().delete(STATE, Expect::Revision(revision))).await?;
        let keys = shared.slot0.scan(COPIED.as_bytes());
        let deletions = keys.into_iter().fold(Command::new(), |command, (key, _, _)| command.delete(key, Expect::Any));
        for command in crate::consume::split(deletions) {
            shared.slot0.commit(command).await?;
        }
        info!(to = %state.to, "a migration of the backbone was given up");
        Ok(())
    }

    /// How it stands, as far as this gateway has followed; none where there is none.
    ///
    /// # Errors
    /// [`ErrorKind::DataLoss`] where an entry cannot be read.
    pub fn status(&self) -> Result<Option<Status>> {
        let Some((state, _)) = self.shared.state()? else { return Ok(None) };
        let mut partitions = Vec::new();
        for (id, copied) in self.shared.copied()? {
            let LogId::Topic { topic, partition } = id else { continue };
            partitions.push(PartitionStatus {
                topic: topic.to_string(),
                partition,
                events: copied.count,
                sha256: copied.hash.to_string(),
                late: copied.late,
            });
        }
        partitions.sort_unstable_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
        Ok(Some(Status {
            to: state.to,
            target: state.target,
            phase: state.phase,
            done: state.done,
            coordinator: state.coordinator_http,
            started_at: state.started_at,
            moved_at: state.moved_at,
            behind: state.behind,
            attempts: state.attempt,
            error: state.error,
            partitions,
        }))
    }
}

impl Shared {
    /// What slot 0 says of it, with the revision of that.
    fn state(&self) -> Result<Option<(State, u64)>> {
        let Some(head) = self.slot0.get(STATE.as_bytes()) else { return Ok(None) };
        Ok(Some((read(STATE.as_bytes(), &head.value)?, head.revision)))
    }

    /// How far each partition was copied.
    fn copied(&self) -> Result<Vec<(LogId, Copied)>> {
        let entries = self.slot0.scan(COPIED.as_bytes()).into_iter().map(|(key, _, value)| {
            let name = std::str::from_utf8(&key[COPIED.len()..]).unwrap_or_default();
            let id = name.rsplit_once('/').and_then(|(topic, partition)| {
                Some(LogId::Topic { topic: topic.into(), partition: partition.parse().ok()? })
            });
            let id = id.ok_or_else(|| {
                Error::new(ErrorKind::DataLoss, format!("the journal's key {COPIED}{name} names no partition"))
            })?;
            Ok((id, read(&key, &value)?))
        });
        entries.collect()
    }

    /// This process.
    fn node(&self) -> NodeId {
        match &self.parts.requests {
            Some(requests) => requests.node(),
            // Nobody else can be meant.
            None => self.parts.claims.owners().iter().find_map(|slot| slot.owner).unwrap_or(NodeId(0)),
        }
    }

    /// Whether a process is known to live.
    fn is_there(&self, node: NodeId) -> bool {
        let others = self.parts.requests.as_ref();
        node == self.node() || others.is_some_and(|others| others.members().iter().any(|member| member.node == node))
    }

    /// The backbone that it goes to, opened once.
    async fn target(&self, to: &str) -> Result<Target> {
        let mut open = self.target.lock().await;
        if let Some((_, target)) = open.as_ref().filter(|(name, _)| name == to) {
            return Ok(target.clone());
        }
        let target = self.parts.targets.open(to, &self.parts.environment).await?;
        self.parts.bridges.close_with(Arc::clone(&target.log));
        *open = Some((to.into(), target.clone()));
        Ok(target)
    }

    /// Does the work from now on, unless it does so already.
    fn coordinate(self: &Arc<Self>) {
        if !self.coordinates.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(self);
            self.parts.environment.spawn(async move {
                Arc::clone(&shared).run().await;
                shared.coordinates.store(false, Ordering::Release);
            });
        }
    }
}
