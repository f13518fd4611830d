//! What the coordinator does: see the phases in the module `migrate`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::stream::{self, StreamExt as _};
use tidegate_schemas::limits;
use tokio::time::Instant;
use tracing::{info, warn};

use super::copy::{Copier, Failure, may_pass};
use super::entry::{Copied, Incoming, Phase, State, copied_key};
use super::follow::{PREPARED, SERVICE};
use super::seat::Seat;
use super::{FROZEN, INCOMING, STATE, Shared, Target};
use crate::catalogue::{Version, View, entries, read, write};
use crate::consume::carry::{self, Found};
use crate::consume::split;
use crate::error::{Error, ErrorKind, Result};
use crate::lane::NodeId;
use crate::log::{BoxFuture, LogId, LogSpec, PartitionLog as _, Position};
use crate::request::To;
use crate::slot::{Command, CommitError, Expect, SlotHandle};

/// Events of one partition that are copied before the others have their turn and what was done is written down.
const SHARE_EVENTS: u64 = 20_000;
/// A round that found no more than that is followed by the switch.
const ROUND_EVENTS: u64 = 1_000;
/// Or one that took no longer than that.
const ROUND_TIME: Duration = Duration::from_secs(1);
/// How often it is asked whether gateways hold their work.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// How often it is looked what came late to the old backbone.
const LATE_INTERVAL: Duration = Duration::from_secs(1);

/// Why the work stopped.
#[derive(Debug)]
enum Stop {
    /// The migration was given up, or somebody else does the work.
    Superseded,
    /// The process stops.
    Stopping,
    /// A broker or a slot said so.
    Broken(Error),
    /// The gateways do not all hold their work, or that cannot be known.
    NotHeld(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<CommitError> for Stop {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { key, .. } if key == STATE.as_bytes() => Self::Superseded,
            error => {
                let kind = match &error {
                    CommitError::DataLoss { .. } => ErrorKind::DataLoss,
                    CommitError::TooLarge { .. } | CommitError::RepeatedKey { .. } => ErrorKind::Misconfigured,
                    _ => ErrorKind::Unavailable,
                };
                Self::Broken(Error::new(kind, "a slot cannot be written").with_source(error))
            }
        }
    }
}

/// A partition, how many events were copied, how far it is, and why it went no further or whether that is all.
type Sharing<'a> = BoxFuture<'a, (LogId, u64, Copied, std::result::Result<bool, Failure>)>;
/// A partition, how it begins where it is not begun, its end, and how many events were not copied.
type Looking<'a> = BoxFuture<'a, Result<(LogId, Option<Copied>, Position, u64)>>;

async fn look_at(
    copier: &Copier,
    id: &LogId,
    source: Option<Position>,
) -> Result<(LogId, Option<Copied>, Position, u64)> {
    let fresh = match source {
        None => Some(copier.begin(id).await?),
        Some(_) => None,
    };
    let end = copier.source.info(id).await?.end;
    let from = source.or_else(|| fresh.as_ref().map(|copied| copied.source)).unwrap_or_default();
    let behind = if end > from { copier.source.count(id, from).await? } else { 0 };
    Ok((id.clone(), fresh, end, behind))
}

/// The work of one coordinator.
struct Mover {
    shared: Arc<Shared>,
    state: State,
    /// Of the entry of the state.
    revision: u64,
    target: Target,
    copier: Copier,
    copied: BTreeMap<LogId, Copied>,
    /// Partitions whose entry is behind.
    dirty: HashSet<LogId>,
    /// Topics that are known to be there.
    created: HashSet<ByteString>,
}

impl Shared {
    /// Does the work, until it is done, or is another's.
    pub(super) async fn run(self: Arc<Self>) {
        let stopping = self.parts.environment.stopping().clone();
        loop {
            let stop = tokio::select! {
                () = stopping.cancelled() => Err(Stop::Stopping),
                stop = self.attempt() => stop,
            };
            let error = match stop {
                Ok(()) | Err(Stop::Superseded | Stop::Stopping) => return,
                Err(Stop::Broken(error)) => error,
                Err(Stop::NotHeld(reason)) => Error::new(ErrorKind::Unavailable, reason),
            };
            let passes = may_pass(&error);
            warn!(%error, passes, "the migration of the backbone does not go on");
            let Some(phase) = self.note(&error, passes).await else { return };
            if phase == Phase::Failed {
                return;
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(limits::MIGRATION_RETRY_INTERVAL) => {}
            }
        }
    }

    /// Writes down why it does not go on; how it stands then, where this process is still the one to do the work.
    async fn note(&self, error: &Error, passes: bool) -> Option<Phase> {
        let (mut state, revision) = self.state().ok().flatten()?;
        if NodeId(state.coordinator) != self.node() {
            return None;
        }
        let mut command = Command::new();
        state.error = Some(error.to_string());
        if state.phase == Phase::Switching {
            state.phase = Phase::Copying;
            command = command.delete(FROZEN, Expect::Any);
        }
        if !passes && state.phase != Phase::Moved {
            state.phase = Phase::Failed;
        }
        let command = command.put(STATE, Expect::Revision(revision), write(&state));
        match self.slot0.commit(command).await {
            Err(CommitError::Conflict { .. }) => None,
            // What could not be written is tried again with the next error, or found by who follows.
            Ok(_) | Err(_) => Some(state.phase),
        }
    }

    async fn attempt(self: &Arc<Self>) -> std::result::Result<(), Stop> {
        let Some((state, revision)) = self.state()? else { return Err(Stop::Superseded) };
        if NodeId(state.coordinator) != self.node() {
            return Err(Stop::Superseded);
        }
        let target = self.target(&state.to).await?;
        let copier = Copier { source: Arc::clone(self.parts.bridges.home()), target: Arc::clone(&target.log) };
        let copied = self.copied()?.into_iter().collect();
        let (dirty, created) = (HashSet::new(), HashSet::new());
        let shared = Arc::clone(self);
        let mut mover = Mover { shared, state, revision, target, copier, copied, dirty, created };
        if !(mover.state.phase == Phase::Moved && mover.state.done) {
            let seat = Seat::take(&mover.target, &self.parts.http, &self.parts.environment).await?;
            let moved = mover.carry_out(&seat).await;
            seat.leave().await;
            moved?;
        }
        mover.pass_on().await
    }
}

impl Mover {
    /// Everything that needs the slots of the new backbone.
    async fn carry_out(&mut self, seat: &Seat) -> std::result::Result<(), Stop> {
        let slots = seat.slots();
        self.announce(slots[0].as_ref()).await?;
        if self.state.phase == Phase::Switching {
            self.give_way("the gateway that did the work was gone").await?;
        }
        let mut pause = limits::MIGRATION_RETRY_INTERVAL;
        while self.state.phase != Phase::Moved {
            let began = Instant::now();
            let events = self.round().await?;
            if events > ROUND_EVENTS && began.elapsed() > ROUND_TIME {
                continue;
            }
            match self.switch(&slots).await {
                Err(Stop::NotHeld(reason)) => {
                    warn!(reason, "the backbone is not moved yet; trying again");
                    self.give_way(&reason).await?;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(limits::MIGRATION_RETRY_INTERVAL_MAX);
                }
                other => other?,
            }
        }
        let incoming = self.incoming(true);
        slots[0].commit(Command::new().put(INCOMING, Expect::Any, write(&incoming))).await?;
        self.state.done = true;
        self.save().await?;
        info!(target = self.target.name, "the backbone was moved; gateways on the new one work from now on");
        Ok(())
    }

    fn incoming(&self, done: bool) -> Incoming {
        let from = self.shared.parts.bridges.capability().broker.to_owned();
        Incoming { v: Version, id: self.state.id, from, done }
    }

    /// Marks the new backbone, so that no gateway works there before the move; refuses one that is used.
    async fn announce(&self, slot0: &dyn SlotHandle) -> std::result::Result<(), Stop> {
        let known = slot0.get(INCOMING.as_bytes());
        let ours = match &known {
            Some(head) => read::<Incoming>(INCOMING.as_bytes(), &head.value)?.id == self.state.id,
            None => false,
        };
        if !ours && !entries(slot0).is_empty() {
            let context = format!(
                "{} is in use: its catalogue holds topics or subscriptions; a backbone is moved to one that is empty (another \
                 `namespace` makes one)",
                self.target.name
            );
            return Err(Error::new(ErrorKind::Conflict, context).into());
        }
        if !ours {
            let incoming = self.incoming(false);
            slot0.commit(Command::new().put(INCOMING, Expect::Any, write(&incoming))).await?;
        }
        Ok(())
    }

    /// Writes the state down, and how far partitions were copied.
    async fn save(&mut self) -> std::result::Result<(), Stop> {
        let entries = self.dirty.drain().filter_map(|id| Some((copied_key(&id), write(self.copied.get(&id)?))));
        let puts = entries.fold(Command::new(), |command, (key, value)| command.put(key, Expect::Any, value));
        let mut commands = split(puts);
        if commands.is_empty() {
            commands.push(Command::new());
        }
        for command in commands {
            // With each of them: who is not the one any more to do the work writes nothing.
            self.commit(command).await?;
        }
        Ok(())
    }

    /// Commits a command together with the state, where this process is still the one to do the work.
    async fn commit(&mut self, command: Command) -> std::result::Result<(), Stop> {
        let command = command.put(STATE, Expect::Revision(self.revision), write(&self.state));
        self.revision = self.shared.slot0.commit(command).await?.revision;
        Ok(())
    }

    /// Goes back to copying.
    async fn give_way(&mut self, reason: &str) -> std::result::Result<(), Stop> {
        self.state.phase = Phase::Copying;
        self.state.error = Some(reason.to_owned());
        self.commit(Command::new().delete(FROZEN, Expect::Any)).await
    }

    /// Every topic that is ours to move.
    fn topics(&self) -> Vec<(ByteString, u32)> {
        let view = self.shared.parts.consume.catalogue().view();
        let ours = view.topics.values().filter(|topic| topic.spec.attached.is_none());
        ours.map(|topic| (topic.spec.name.as_byte_string().clone(), topic.spec.partitions)).collect()
    }

    /// Copies every partition as far as it reaches now. Gives how many events that were.
    async fn round(&mut self) -> std::result::Result<u64, Stop> {
        let topics = self.topics();
        let names: HashSet<&ByteString> = topics.iter().map(|(name, _)| name).collect();
        let gone = |id: &LogId| !matches!(id, LogId::Topic { topic, .. } if names.contains(topic));
        for id in self.copied.keys().filter(|id| gone(id)).cloned().collect::<Vec<_>>() {
            self.drop_partition(&id).await?;
        }
        for (name, partitions) in &topics {
            if self.created.insert(name.clone()) {
                self.target.log.create(LogSpec::topic(name.clone(), *partitions)).await?;
            }
        }
        let all: Vec<LogId> = topics
            .iter()
            .flat_map(|(topic, partitions)| {
                (0..*partitions).map(|partition| LogId::Topic { topic: topic.clone(), partition })
            })
            .collect();
        let mut left = self.look(&all).await?;
        let mut events = 0;
        while !left.is_empty() {
            events += self.share(&mut left).await?;
            self.save().await?;
        }
        self.state.error = None;
        self.save().await?;
        Ok(events)
    }

    /// A topic is gone from the catalogue: what was copied of it goes as well.
    async fn drop_partition(&mut self, id: &LogId) -> std::result::Result<(), Stop> {
        self.copied.remove(id);
        self.dirty.remove(id);
        if let LogId::Topic { topic, partition } = id {
            self.created.remove(topic);
            if *partition == 0 {
                match self.target.log.delete(LogSpec::topic(topic.clone(), 1)).await {
                    Err(error) if *error.kind() != ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
        }
        self.commit(Command::new().delete(copied_key(id), Expect::Any)).await
    }

    /// Which partitions have more than was copied, each with its end; those that are not begun are begun.
    async fn look(&mut self, all: &[LogId]) -> Result<BTreeMap<LogId, Position>> {
        let copier = &self.copier;
        let begun: HashMap<&LogId, Option<Position>> =
            all.iter().map(|id| (id, self.copied.get(id).map(|copied| copied.source))).collect();
        let looks: Vec<Looking<'_>> =
            all.iter().map(|id| Box::pin(look_at(copier, id, begun[id])) as Looking<'_>).collect();
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(limits::MIGRATION_PARTITIONS).collect().await;
        let (mut left, mut behind) = (BTreeMap::new(), 0);
        for one in looked {
            let (id, fresh, end, count) = one?;
            if let Some(fresh) = fresh {
                self.dirty.insert(id.clone());
                self.copied.insert(id.clone(), fresh);
            }
            behind += count;
            if self.copied.get(&id).is_some_and(|copied| copied.source < end) {
                left.insert(id, end);
            }
        }
        self.state.behind = Some(behind);
        Ok(left)
    }

    /// Copies a share of each of these; who is done with is taken out. Gives how many events that were.
    async fn share(&mut self, left: &mut BTreeMap<LogId, Position>) -> std::result::Result<u64, Stop> {
        let copier = &self.copier;
        let begun: Vec<(LogId, Position, Copied)> =
            left.iter().filter_map(|(id, end)| Some((id.clone(), *end, self.copied.get(id)?.clone()))).collect();
        let shares: Vec<Sharing<'_>> = begun
            .into_iter()
            .map(|(id, end, mut copied)| {
                Box::pin(async move {
                    let before = copied.count;
                    let outcome = copier.copy(&id, &mut copied, end, SHARE_EVENTS).await;
                    (id, copied.count - before, copied, outcome)
                }) as Sharing<'_>
            })
            .collect();
        let done: Vec<_> = stream::iter(shares).buffer_unordered(limits::MIGRATION_PARTITIONS).collect().await;
        let (mut events, mut failed, mut unordered) = (0, None, HashSet::new());
        for (id, count, copied, outcome) in done {
            events += count;
            self.dirty.insert(id.clone());
            self.copied.insert(id.clone(), copied);
            match outcome {
                Ok(true) => drop(left.remove(&id)),
                Ok(false) => {}
                Err(Failure::Unordered) => {
                    if let LogId::Topic { topic, .. } = id {
                        unordered.insert(topic);
                    }
                }
                // Deleted meanwhile; the next round sees that.
                Err(Failure::Broker(error)) if *error.kind() == ErrorKind::NotFound && !self.is_known(&id) => {
                    left.remove(&id);
                }
                Err(Failure::Broker(error)) => failed = failed.or(Some(error)),
            }
        }
        self.state.behind = Some(self.state.behind.unwrap_or(0).saturating_sub(events));
        for topic in unordered {
            self.begin_anew(&topic).await?;
        }
        if let Some(error) = failed {
            self.save().await?;
            return Err(error.into());
        }
        Ok(events)
    }

    fn is_known(&self, id: &LogId) -> bool {
        matches!(id, LogId::Topic { topic, .. } if self.shared.parts.consume.catalogue().topic(topic).is_some())
    }

    /// Deletes a topic that was copied with a hole, and begins it anew.
    async fn begin_anew(&mut self, topic: &ByteString) -> std::result::Result<(), Stop> {
        let ids: Vec<LogId> = self
            .copied
            .keys()
            .filter(|id| matches!(id, LogId::Topic { topic: known, .. } if known == topic))
            .cloned()
            .collect();
        warn!(%topic, "the new backbone lost an event of a topic between others; the topic is copied anew");
        // As many as there were numbers for them.
        let spec = LogSpec::topic(topic.clone(), ids.len() as u32);
        self.target.log.delete(spec.clone()).await?;
        self.target.log.create(spec).await?;
        for id in ids {
            let begun = self.copier.begin(&id).await?;
            self.dirty.insert(id.clone());
            self.copied.insert(id, begun);
        }
        if self.state.phase == Phase::Switching {
            // Too long for whoever waits with an event in hand.
            return Err(Stop::NotHeld(format!("topic {topic} has to be copied anew")));
        }
        Ok(())
    }

    /// Moves, while every gateway holds its work.
    async fn switch(&mut self, slots: &[Arc<dyn SlotHandle>]) -> std::result::Result<(), Stop> {
        let shared = Arc::clone(&self.shared);
        let asked = self.ask(PREPARED).await;
        if let Some((why, _)) = asked.err() {
            return Err(Stop::NotHeld(why));
        }
        self.state.phase = Phase::Switching;
        self.state.attempt += 1;
        self.state.error = None;
        self.commit(Command::new().put(FROZEN, Expect::Any, Bytes::new())).await?;
        info!(attempt = self.state.attempt, "gateways are asked to hold their work for the move");
        self.held().await?;
        let claims = &shared.parts.claims;
        // What the last owner wrote is followed here when a commit of this process has returned.
        let old: Vec<Arc<dyn SlotHandle>> = (0..claims.slots()).map(|slot| claims.slot(slot)).collect();
        for slot in &old {
            slot.commit(Command::new()).await?;
        }
        let catalogue = shared.parts.consume.catalogue();
        catalogue.reached(self.revision).await;
        // What gateways have published is answered by now, and so is before the end that is found here.
        self.round().await?;
        let view = catalogue.view().clone();
        let mut carried = carry::gather(&old, &view)?;
        let found = self.find(&carried).await?;
        carried.translate(&|partition, position| found.get(&partition.log())?.get(&position).copied());
        if carried.trimmed > 0 {
            warn!(
                events = carried.trimmed,
                "events that were to be delivered are kept by their topics no longer; they are not taken along"
            );
        }
        let revision = self.write_catalogue(slots[0].as_ref(), &view, &carried).await?;
        carried.write(slots, &view, revision).await?;
        // Whoever did not hold its work after all has changed something by now, or does so too late.
        self.held().await?;
        self.state.phase = Phase::Moved;
        self.state.behind = Some(0);
        self.state.moved_at = Some(shared.parts.environment.clock.unix_milliseconds());
        self.save().await
    }

    /// Waits until every gateway holds its work for this attempt, and every slot is owned by one that does.
    async fn held(&self) -> std::result::Result<(), Stop> {
        let until = Instant::now() + limits::MIGRATION_HOLD_TIMEOUT;
        loop {
            let (why, held) = match self.ask(self.state.attempt).await {
                Ok(held) => (None, held),
                Err((why, held)) => (Some(why), held),
            };
            let owners = self.shared.parts.claims.owners();
            // Who has the backbone for itself owns every slot.
            let is_held = |node: NodeId| held.contains(&node) || self.shared.parts.requests.is_none();
            let other = owners.iter().find(|slot| !slot.here && !slot.owner.is_some_and(is_held));
            let why = why.or_else(|| other.map(|slot| format!("slot {} has no owner that holds its work", slot.slot)));
            let Some(why) = why else { return Ok(()) };
            if Instant::now() >= until {
                return Err(Stop::NotHeld(why));
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }

    /// Asks every gateway; gives those that say yes, with why one does not where that is so.
    async fn ask(&self, attempt: u64) -> std::result::Result<HashSet<NodeId>, (String, HashSet<NodeId>)> {
        let shared = &self.shared;
        let mut yes: HashSet<NodeId> = HashSet::new();
        let mut no = None;
        match shared.why_not(attempt) {
            None => drop(yes.insert(shared.node())),
            Some(reason) => no = Some(format!("this gateway does not go along: {reason}")),
        }
        if let Some(requests) = &shared.parts.requests {
            for member in requests.members().iter().filter(|member| member.node != shared.node()) {
                let body = Bytes::copy_from_slice(&attempt.to_be_bytes());
                let asked = requests.call(To::Node(member.node), SERVICE, body, limits::CLUSTER_ASK_TIMEOUT).await;
                let http = &member.info.http;
                match asked {
                    Ok(answer) if answer.is_empty() => drop(yes.insert(member.node)),
                    Ok(answer) => {
                        let reason = String::from_utf8_lossy(&answer);
                        no = Some(format!("the gateway at {http} does not go along: {reason}"));
                    }
                    Err(error) => no = Some(format!("the gateway at {http} does not answer: {error}")),
                }
            }
        }
        match no {
            None => Ok(yes),
            Some(why) => Err((why, yes)),
        }
    }

    /// Finds every position that is carried.
    async fn find(
        &self,
        carried: &carry::Carried,
    ) -> std::result::Result<HashMap<LogId, HashMap<Position, Found>>, Stop> {
        let mut asked: Vec<BoxFuture<'_, Result<_>>> = Vec::new();
        for (partition, wanted) in carried.positions() {
            let id = partition.log();
            // What is attached elsewhere stays where it is.
            let Some(copied) = self.copied.get(&id) else { continue };
            asked.push(Box::pin(async move {
                let found = self.copier.find(&id, copied, &wanted).await?;
                Ok((id, found))
            }));
        }
        let all: Vec<_> = stream::iter(asked).buffer_unordered(limits::MIGRATION_PARTITIONS).collect().await;
        Ok(all.into_iter().collect::<Result<_>>()?)
    }

    /// Brings the catalogue of the new backbone to that of the old one; gives the revision from which it is.
    async fn write_catalogue(
        &self,
        slot0: &dyn SlotHandle,
        view: &View,
        carried: &carry::Carried,
    ) -> std::result::Result<u64, Stop> {
        let wanted: BTreeMap<Bytes, Bytes> = view.entries().chain(carried.starts()).collect();
        let known: BTreeMap<Bytes, Bytes> = entries(slot0).into_iter().chain(carry::start_entries(slot0)).collect();
        let mut command = Command::new();
        for (key, value) in wanted.iter().filter(|(key, value)| known.get(*key) != Some(value)) {
            command = command.put(key.clone(), Expect::Any, value.clone());
        }
        for key in known.keys().filter(|key| !wanted.contains_key(*key)) {
            command = command.delete(key.clone(), Expect::Any);
        }
        for command in split(command) {
            slot0.commit(command).await?;
        }
        Ok(slot0.revision())
    }

    /// Passes on what comes to the old backbone although it was moved: others write to it as well, and a gateway that stood
    /// still may do so once more.
    async fn pass_on(&mut self) -> std::result::Result<(), Stop> {
        if self.shared.parts.requests.is_none() {
            return Ok(());
        }
        loop {
            let ids: Vec<LogId> = self.copied.keys().cloned().collect();
            let left = self.look(&ids).await?;
            let mut late = 0;
            for (id, end) in left {
                let Some(copied) = self.copied.get_mut(&id) else { continue };
                match self.copier.pass_on(&id, copied, end).await {
                    Ok(passed) => late += passed,
                    Err(error) if *error.kind() == ErrorKind::NotFound => {
                        warn!(%id, %error, "what comes late to the old backbone is not passed on any more: the topic was deleted");
                        self.copied.remove(&id);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
                self.dirty.insert(id);
            }
            if late > 0 {
                info!(events = late, "events that came to the old backbone after the move were passed on");
                self.state.behind = Some(0);
                self.save().await?;
            }
            tokio::time::sleep(LATE_INTERVAL).await;
        }
    }
}
