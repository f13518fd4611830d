//! The task of one slot in one process: follows it, takes it over when its machine says so, and gives it up.

use std::sync::Arc;
use std::time::Duration;

use tidegate_schemas::limits;
use tokio::sync::watch;

use super::machine::{Machine, Next};
use super::seat::{Seat, Seen, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{BoxFuture, LogInfo, Position};
use crate::slot::follow::Follower;
use crate::slot::journal::{Identity, Taken};
use crate::slot::{CommitError, Journal};

/// The answer to the question for a log's end, under way.
type Probe = BoxFuture<'static, Result<LogInfo>>;

pub(super) struct Driver {
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    identity: Identity,
    machine: Machine,
    changed: watch::Receiver<u64>,
}

/// Who owned a slot before this process did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nobody, or one that gave it up.
    Nobody,
    /// One that fell silent.
    Silent,
}

/// How one ownership or following ended.
enum Turn {
    Follow(Box<Follower>),
    /// The slot has to be looked for again.
    Find(Option<Error>),
    Own(Journal, Before),
    Stop,
}

impl Driver {
    pub(super) fn new(shared: &Arc<Shared>, seat: &Arc<Seat>, identity: &Identity) -> Self {
        let now = shared.environment.clock.since_boot();
        Self {
            machine: Machine::new(shared.node, now),
            changed: shared.changed.subscribe(),
            shared: Arc::clone(shared),
            seat: Arc::clone(seat),
            identity: identity.clone(),
        }
    }

    /// Runs until the environment stops.
    pub(super) async fn run(mut self, follower: Follower) {
        self.read(&follower);
        let mut turn = Turn::Follow(Box::new(follower));
        loop {
            turn = match turn {
                Turn::Follow(follower) => self.follow(*follower).await,
                Turn::Find(error) => self.find(error).await,
                Turn::Own(journal, before) => self.own(journal, before).await,
                Turn::Stop => return,
            };
        }
    }

    fn now(&self) -> Duration {
        self.shared.environment.clock.since_boot()
    }

    /// Notes what was read of the owner.
    fn see(&self, seen: Seen) {
        let before = std::mem::replace(&mut *self.seat.seen.lock(), seen);
        if before != seen {
            self.shared.change();
        }
    }

    fn read(&mut self, follower: &Follower) {
        let (owner, released) = (follower.owner(), follower.released());
        self.machine.frame(self.now(), owner, released);
        self.seat.pulse.reach(self.now());
        self.see(Seen { epoch: follower.epoch(), owner, released });
    }

    async fn follow(&mut self, mut follower: Follower) -> Turn {
        let stopping = self.shared.environment.stopping().clone();
        let mut probe: Option<Probe> = None;
        // The end that was told and when it was asked for, until it is read up to.
        let mut end: Option<(Position, Duration)> = None;
        let mut asked = Duration::ZERO;
        loop {
            let now = self.now();
            if let Some((_, asked)) = end.take_if(|(end, _)| follower.next() >= *end) {
                self.machine.answered(now, now.saturating_sub(asked));
            }
            let outlook = self.shared.outlook(&self.seat);
            let until = match self.machine.next(now, outlook) {
                Next::Wait(until) => until,
                // A broker that is slow would answer none where each question were given up for the next one.
                Next::Probe if probe.is_some() => now + limits::CLAIM_LOOK_INTERVAL,
                Next::Probe => {
                    self.machine.probing(now);
                    (end, asked) = (None, now);
                    probe = Some(self.probe(&follower));
                    continue;
                }
                Next::Announce if follower.announceable() => {
                    let (taken, seen) = (follower.taken(), *self.seat.seen.lock());
                    if let Some(journal) = self.announce(taken, seen).await {
                        let silent = !seen.released && seen.owner.is_some_and(|owner| owner != self.shared.node);
                        return Turn::Own(journal, if silent { Before::Silent } else { Before::Nobody });
                    }
                    (probe, end) = (None, None);
                    continue;
                }
                // A generation that was sealed for, and holds nothing.
                Next::Announce => return Turn::Find(None),
                Next::Release => return Turn::Stop,
            };
            let wait = until.saturating_sub(now);
            tokio::select! {
                biased;
                () = stopping.cancelled() => return Turn::Stop,
                read = follower.step() => match read {
                    Ok(accepted) => {
                        if accepted > 0 {
                            self.read(&follower);
                        }
                        self.machine.sign(self.now());
                    }
                    Err(error) => return Turn::Find(Some(error)),
                },
                told = answered(&mut probe) => {
                    probe = None;
                    match told {
                        Ok(info) => {
                            self.shared.answered();
                            end = Some((info.end, asked));
                        }
                        // The generation is gone: another one goes on.
                        Err(error) if *error.kind() == ErrorKind::NotFound => {
                            self.shared.answered();
                            return Turn::Find(Some(error));
                        }
                        Err(error) => tracing::debug!(slot = self.seat.slot, %error, "the end is not known"),
                    }
                }
                _ = self.changed.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn probe(&self, follower: &Follower) -> Probe {
        let (log, id) = (Arc::clone(&self.shared.log), follower.id());
        Box::pin(async move {
            match tokio::time::timeout(limits::CLAIM_PROBE_TIMEOUT, log.info(&id)).await {
                Ok(told) => told,
                Err(_) => Err(Error::new(ErrorKind::Unavailable, format!("{id}: asking for its end took too long"))),
            }
        })
    }

    async fn announce(&mut self, taken: Taken, seen: Seen) -> Option<Journal> {
        let (slot, shared) = (self.seat.slot, &self.shared);
        tracing::debug!(slot, epoch = seen.epoch + 1, "announces itself as the slot's owner");
        let options = shared.options.journal.clone().for_shared(self.identity.clone());
        let log = Arc::clone(&shared.log);
        let taken = Journal::take_over(log, taken, shared.environment.clone(), options);
        match taken.await {
            Ok(journal) => Some(journal),
            Err(error) => {
                tracing::debug!(slot, %error, "does not own the slot");
                // Not all at the same moment again.
                let jitter = limits::CLAIM_RANK_DELAY.mul_f64((shared.environment.random.bits() % 100) as f64 / 100.0);
                self.machine.follows(self.now(), seen.owner, seen.released, jitter);
                None
            }
        }
    }

    /// Looks for the slot until it is found.
    async fn find(&mut self, error: Option<Error>) -> Turn {
        let stopping = self.shared.environment.stopping().clone();
        let slot = self.seat.slot;
        let mut delay = limits::CLAIM_FIND_DELAY;
        let mut error = error;
        self.machine.lost_sight();
        loop {
            if let Some(error) = error.take() {
                let lost = matches!(error.kind(), ErrorKind::DataLoss | ErrorKind::Misconfigured);
                if lost {
                    tracing::error!(slot, %error, "the slot cannot be read; what was read before is kept, and nothing is written");
                    *self.seat.fault.lock() = Some(error.to_string().into());
                    delay = limits::CLAIM_DATA_LOSS_DELAY;
                } else {
                    tracing::debug!(slot, %error, "looks for the slot again");
                }
                tokio::select! {
                    () = stopping.cancelled() => return Turn::Stop,
                    () = tokio::time::sleep(delay) => {}
                }
                delay = if lost { delay } else { (delay * 2).min(limits::CLAIM_FIND_DELAY_MAX) };
            }
            let found = tokio::select! {
                () = stopping.cancelled() => return Turn::Stop,
                found = Follower::find(&self.shared.log, slot, Some(&self.seat.state)) => found,
            };
            match found {
                Ok(Some(follower)) => {
                    if self.seat.fault.lock().take().is_some() {
                        tracing::info!(slot, "the slot can be read again");
                    }
                    self.read(&follower);
                    return Turn::Follow(Box::new(follower));
                }
                Ok(None) => {
                    error = Some(Error::new(ErrorKind::DataLoss, format!("slot {slot} has no log, though it had one")));
                }
                Err(found) => error = Some(found),
            }
        }
    }

    async fn own(&mut self, journal: Journal, before: Before) -> Turn {
        let (stopping, slot) = (self.shared.environment.stopping().clone(), self.seat.slot);
        self.machine.opened();
        *self.seat.journal.lock() = Some(journal.clone());
        self.see(Seen { epoch: journal.epoch(), owner: Some(self.shared.node), released: false });
        // It may have come between the journal and its owner's notice, so those who wait look again in any case.
        self.shared.change();
        let mut told = false;
        let why = loop {
            if !told && let Some(tenant) = self.shared.tenant_of(slot) {
                told = true;
                if before == Before::Silent {
                    tenant.took_over(slot);
                }
                tokio::select! {
                    // A tenant that is still busy with it learns below that it is over.
                    why = journal.ended() => break why,
                    () = tenant.acquired(journal.clone()) => {}
                }
            }
            let now = self.now();
            let wait = match self.machine.next(now, self.shared.outlook(&self.seat)) {
                Next::Release => break self.release(&journal, told).await,
                Next::Wait(until) => until.saturating_sub(now),
                Next::Probe | Next::Announce => Duration::ZERO,
            };
            tokio::select! {
                why = journal.ended() => break why,
                _ = self.changed.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        };
        self.seat.pulse.reach(journal.renewed());
        self.shared.written(journal.renewed());
        *self.seat.journal.lock() = None;
        if why != CommitError::Closed {
            tracing::warn!(slot, epoch = journal.epoch(), %why, "owns the slot no longer");
        }
        if told && let Some(tenant) = self.shared.tenant_of(slot) {
            tenant.lost(slot);
        }
        let turn = match journal.left() {
            Some(left) => {
                let follower = Follower::resume(&self.shared.log, left, Arc::clone(&self.seat.state));
                self.machine.follows(self.now(), follower.owner(), follower.released(), Duration::ZERO);
                self.see(Seen { epoch: follower.epoch(), owner: follower.owner(), released: follower.released() });
                Turn::Follow(Box::new(follower))
            }
            None => {
                self.machine.follows(self.now(), Some(self.shared.node), false, Duration::ZERO);
                let lost = matches!(why, CommitError::DataLoss { .. });
                Turn::Find(lost.then(|| Error::new(ErrorKind::DataLoss, why.to_string())))
            }
        };
        self.shared.change();
        if stopping.is_cancelled() { Turn::Stop } else { turn }
    }

    /// Lets the tenant end its work, and gives the slot up.
    async fn release(&self, journal: &Journal, told: bool) -> CommitError {
        let slot = self.seat.slot;
        if told && let Some(tenant) = self.shared.tenant_of(slot) {
            let drained = tokio::time::timeout(limits::CLAIM_DRAIN_TIMEOUT, tenant.releasing(slot));
            if drained.await.is_err() {
                tracing::warn!(slot, "work in the slot has not ended in time; what was not settled comes again");
            }
        }
        journal.close().await;
        journal.ended().await
    }
}

async fn answered(probe: &mut Option<Probe>) -> Result<LogInfo> {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}
