//! What every gateway of the old backbone does: it follows the state, and holds, lets go of, or turns its work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tidegate_schemas::limits;
use tracing::{info, warn};

use super::entry::{Phase, State};
use super::{FROZEN, Migration, STATE, Shared};
use crate::bridge::Course;
use crate::catalogue::write;
use crate::error::{Error, ErrorKind, Result};
use crate::lane::NodeId;
use crate::log::LogSpec;
use crate::request::{Refusal, Request};
use crate::slot::{Command, Expect};

/// What gateways ask each other for: whether work is held for an attempt, by its number, or for [`PREPARED`], whether it could be.
pub(super) const SERVICE: &str = "migration";
/// See [`SERVICE`]; no attempt has this number.
pub(super) const PREPARED: u64 = 0;
/// How often it is looked whether whoever does the work is still there.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

impl Migration {
    /// Takes part from now on. To be called before this gateway works in any slot; when it returns, what slot 0 says counts
    /// here.
    ///
    /// # Errors
    /// Where the backbone was moved and the new one cannot be reached.
    pub async fn begin(&self) -> Result<()> {
        let shared = &self.shared;
        if let Some(requests) = &shared.parts.requests {
            let asked = Arc::downgrade(shared);
            let answer = move |request: Request| {
                let shared = asked.upgrade();
                std::future::ready(shared.map_or_else(
                    || Err(Refusal::new("closed", "the gateway stops")),
                    |shared| Ok(shared.says(&request.body)),
                ))
            };
            requests.serve(SERVICE, Arc::new(answer));
        }
        if let Some((state, revision)) = shared.state()? {
            if state.phase == Phase::Moved {
                warn!(to = %state.to, target = state.target,
                    "this backbone was moved: events that are published here go to the new one, and are delivered by the gateways \
                     there; start this gateway with the new backbone");
            }
            shared.react(Some(&state)).await.map_err(|error| {
                if state.phase != Phase::Moved {
                    return error;
                }
                let context = format!("this backbone was moved to {}; start this gateway there", state.target);
                Error::new(error.kind().clone(), context).with_source(error)
            })?;
            if shared.parts.requests.is_none() {
                shared.look_after(state, revision).await;
            }
        }
        let following = Arc::clone(shared);
        shared.parts.environment.spawn(async move { following.follow().await });
        Ok(())
    }
}

impl Shared {
    /// The answer to whoever asks this gateway: empty for yes, otherwise why not.
    fn says(&self, asked: &[u8]) -> Bytes {
        let asked = <[u8; 8]>::try_from(asked).map_or(u64::MAX, u64::from_be_bytes);
        self.why_not(asked).unwrap_or_default().into()
    }

    /// Why this gateway does not hold its work for an attempt, or could not.
    pub(super) fn why_not(&self, attempt: u64) -> Option<String> {
        if attempt == PREPARED {
            return self.unprepared.lock().clone();
        }
        if self.held.load(Ordering::Acquire) == attempt {
            return None;
        }
        let reason = self.refused.lock().clone();
        Some(if reason.is_empty() { "it has not done so yet".to_owned() } else { reason })
    }

    async fn follow(self: Arc<Self>) {
        let stopping = self.parts.environment.stopping().clone();
        let mut watch = self.slot0.watch(Bytes::from_static(STATE.as_bytes()));
        loop {
            match self.state() {
                Ok(state) => {
                    let reacted = self.react(state.as_ref().map(|(state, _)| state)).await;
                    if let Err(error) = reacted {
                        let mut refused = self.refused.lock();
                        if *refused != error.to_string() {
                            warn!(%error, "this gateway cannot follow the move of its backbone yet; trying again");
                            *refused = error.to_string();
                        }
                    }
                    if let Some((state, revision)) = state {
                        self.look_after(state, revision).await;
                    }
                }
                Err(error) => warn!(%error, "how the migration stands cannot be read"),
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                change = watch.next() => if change.is_none() { return },
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Brings this gateway to what the state says.
    async fn react(&self, state: Option<&State>) -> Result<()> {
        match state {
            Some(state) if state.phase == Phase::Switching => {
                if self.held.load(Ordering::Acquire) != state.attempt {
                    self.hold(state).await?;
                    self.refused.lock().clear();
                    self.held.store(state.attempt, Ordering::Release);
                }
            }
            Some(state) if state.phase == Phase::Moved => {
                if !matches!(self.parts.bridges.course(), Course::Diverted(_)) {
                    self.turn(state).await?;
                }
            }
            state => {
                if self.held.swap(0, Ordering::AcqRel) != 0 || matches!(self.parts.bridges.course(), Course::Held) {
                    self.parts.bridges.steer(Course::Home);
                    self.suspension.resume().await;
                    info!("this gateway goes on with the backbone that it has");
                }
                if let Some(state) = state.filter(|state| state.phase == Phase::Copying) {
                    let prepared = if self.reaches(state) { self.target(&state.to).await.err() } else { None };
                    *self.unprepared.lock() = prepared.map(|error| error.to_string());
                }
            }
        }
        Ok(())
    }

    /// Whether this process can write to where it goes.
    fn reaches(&self, state: &State) -> bool {
        // An embedded log is in the process of the gateway that does the work.
        !state.target_exclusive || NodeId(state.coordinator) == self.node() || self.parts.requests.is_none()
    }

    async fn hold(&self, state: &State) -> Result<()> {
        if self.reaches(state) {
            self.target(&state.to).await?;
        }
        self.suspension.suspend(limits::MIGRATION_DRAIN_TIMEOUT).await?;
        self.parts.bridges.steer(Course::Held);
        tokio::time::timeout(limits::MIGRATION_DRAIN_TIMEOUT, self.parts.bridges.answered()).await.map_err(|_| {
            Error::new(ErrorKind::Unavailable, "the backbone has not told what became of events that were published")
        })
    }

    /// The new backbone counts.
    async fn turn(&self, state: &State) -> Result<()> {
        self.suspension.suspend(limits::MIGRATION_DRAIN_TIMEOUT).await?;
        if !self.reaches(state) {
            let reason = format!(
                "the backbone was moved to {}, which the gateway at {} has; publish there",
                state.target, state.coordinator_http
            );
            self.parts.bridges.steer(Course::Gone(reason.into()));
            return Ok(());
        }
        // What is published meanwhile waits.
        self.parts.bridges.steer(Course::Held);
        let target = self.target(&state.to).await?;
        let topics: Vec<_> = self.parts.consume.catalogue().view().topics.values().cloned().collect();
        for topic in topics.iter().filter(|topic| topic.spec.attached.is_none()) {
            // They are there; the adapter of this process may not know them yet.
            let name = topic.spec.name.as_byte_string().clone();
            target.log.create(LogSpec::topic(name, topic.spec.partitions)).await?;
        }
        self.parts.bridges.steer(Course::Diverted(target.log));
        info!(target = state.target, "events that are published here go to the new backbone from now on");
        Ok(())
    }

    /// Takes the work over from who is gone.
    async fn look_after(self: &Arc<Self>, state: State, revision: u64) {
        if self.coordinates.load(Ordering::Acquire) || state.phase == Phase::Failed {
            return;
        }
        let coordinator = NodeId(state.coordinator);
        if state.done && self.parts.requests.is_none() {
            return;
        }
        if coordinator == self.node() {
            self.coordinate();
            return;
        }
        if self.is_there(coordinator) {
            return;
        }
        let is_first = self.parts.claims.owners().first().is_some_and(|slot| slot.here);
        if !is_first {
            return;
        }
        let takes_over = self.reaches(&State { coordinator: 0, ..state.clone() });
        let mut next = state.clone();
        let mut command = Command::new();
        if state.phase == Phase::Switching {
            next.phase = Phase::Copying;
            command = command.delete(FROZEN, Expect::Any);
        }
        if takes_over {
            (next.coordinator, next.coordinator_http) = (self.node().0, self.parts.http.clone());
        } else if next.phase == Phase::Copying {
            next.phase = Phase::Failed;
            next.error = Some(format!(
                "the gateway at {} is gone, which had {} open; begin the migration again there",
                state.coordinator_http, state.target
            ));
        }
        if next == state {
            return;
        }
        let command = command.put(STATE, Expect::Revision(revision), write(&next));
        match self.slot0.commit(command).await {
            Ok(_) if takes_over => {
                info!(to = %state.to, phase = state.phase.name(), "this gateway goes on with the migration");
                self.coordinate();
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "the migration whose gateway is gone cannot be taken over yet"),
        }
    }
}
