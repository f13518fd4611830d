//! The task that owns a slot: takes commands, writes frames, answers when they are known accepted, rolls.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_schemas::limits;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::judge::{Judged, Overlay};
use super::roll::{Event, Roll};
use super::writer::{Manner, Outcome, Stop, Writer};
use super::{Answer, CommitError, Committed, Left, Options, Request, Shared};
use crate::environment::Environment;
use crate::error::{Error, ErrorKind};
use crate::log::{LogSpec, PartitionLog};
use crate::slot::frame::{Commit, Generation, HEADER_BYTES, Kind};
use crate::slot::reader::within;

type CommitResult = std::result::Result<Committed, CommitError>;

struct Waiter {
    answer: Answer,
    result: CommitResult,
    /// What the frame is for the answer.
    rests: Rests,
}

/// What the frame that a command waits for is for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rests {
    /// It carries the command itself.
    Carried,
    /// The answer rests on it, and it was sent before the command came: accepted, it does not say that nobody else owns the
    /// slot by now.
    Before,
    /// It was sent after the answer was found: accepted, it says that the answer was true.
    Behind,
}

/// A frame of commits that is not known accepted.
#[derive(Default)]
struct Flying {
    sequence: u64,
    commits: Vec<Commit>,
    waiters: Vec<Waiter>,
    bytes: usize,
}

pub(super) struct Owner {
    log: Arc<dyn PartitionLog>,
    environment: Environment,
    options: Options,
    frame_bytes: usize,
    shared: Shared,
    writer: Writer,
    flying: VecDeque<Flying>,
    building: Flying,
    overlay: Overlay,
    bytes_behind: u64,
    /// Bytes behind the snapshot at which a roll is tried: more after one that failed.
    roll_at: u64,
    roll: Option<Roll>,
    /// Answers that are true only where nobody else owns the slot, which is to be shown by a frame that is yet to be sent.
    unproven: Vec<Waiter>,
    /// Whether the log is shared, so that signs of life are written.
    beats: bool,
}

/// What a request asks beside commits.
enum Asked {
    Close(oneshot::Sender<()>),
    Verify(oneshot::Sender<()>),
}

/// Why the loop ended in peace.
enum Ended {
    Close(Option<oneshot::Sender<()>>),
    /// No handle is left: nobody can tell whether the slot is to be released.
    Abandoned,
}

impl Owner {
    pub(super) fn new(
        log: Arc<dyn PartitionLog>,
        environment: Environment,
        options: Options,
        writer: Writer,
        shared: Shared,
        bytes_behind: u64,
    ) -> Self {
        let revision = shared.state.read().heads.revision();
        Self {
            frame_bytes: options.frame_bytes(log.as_ref()),
            beats: !log.capability().exclusive,
            roll_at: options.roll_bytes,
            log,
            environment,
            options,
            shared,
            writer,
            flying: VecDeque::new(),
            building: Flying::default(),
            overlay: Overlay::new(revision),
            bytes_behind,
            roll: None,
            unproven: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let (stopping, closing) = (self.environment.stopping().clone(), self.shared.closing.clone());
        let endless = self.options.resends_max.is_none();
        let late = async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = closing.cancelled() => {}
            }
            if !endless {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(limits::JOURNAL_CLOSE_TIMEOUT).await;
        };
        let ended = tokio::select! {
            ended = self.work(&mut requests) => Some(ended),
            () = late => None,
        };
        self.shared.lease.end();
        let mut closed = None;
        let why = match ended {
            Some((ended, answer)) => {
                closed = answer;
                let consistent = !matches!(ended, Err(Stop::DataLoss(_)));
                let why = ended.map_or_else(|stop| self.fail(stop), |()| CommitError::Closed);
                if consistent {
                    let (acceptor, bytes_behind) = (self.writer.acceptor().clone(), self.bytes_behind);
                    *self.shared.left.lock() = Some(Left { acceptor, bytes_behind });
                }
                why
            }
            None => {
                let waited = limits::JOURNAL_CLOSE_TIMEOUT;
                let context = format!("the slot was to be closed, and its log did not answer within {waited:?}");
                self.fail(Stop::GaveUp { possible: true, error: Error::new(ErrorKind::Unavailable, context) })
            }
        };
        // Set once, here.
        self.shared.why.set(why.clone()).ok();
        if self.shared.last {
            self.shared.state.write().watches.close();
        }
        requests.close();
        while let Some(request) = requests.recv().await {
            if let Request::Commit { answer, .. } = request {
                // Who asked may be gone, here and below.
                answer.send(Err(why.clone())).ok();
            }
        }
        if let Some(closed) = closed {
            closed.send(()).ok();
        }
        self.shared.ended.cancel();
    }

    /// Serves, and closes where that is asked.
    async fn work(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
    ) -> (std::result::Result<(), Stop>, Option<oneshot::Sender<()>>) {
        match self.serve(requests).await {
            Ok(Ended::Abandoned) => (Ok(()), None),
            Ok(Ended::Close(answer)) => (self.close(requests).await, answer),
            Err(stop) => (Err(stop), None),
        }
    }

    async fn serve(&mut self, requests: &mut mpsc::Receiver<Request>) -> std::result::Result<Ended, Stop> {
        let stopping = self.environment.stopping().clone();
        loop {
            let room = self.writer.out() < self.options.frames_in_flight_max.max(1) as u64;
            // While a frame is out, another behind it would tell nobody more.
            let beats = self.beats && self.writer.out() == 0;
            let beat = self.writer.pushed() + limits::CLAIM_HEARTBEAT_INTERVAL;
            tokio::select! {
                biased;
                Some(outcome) = self.writer.outcome(), if self.writer.waits() => self.settle(outcome).await?,
                Some(event) = rolled(&mut self.roll) => self.step(event).await?,
                () = until(beat), if beats => {
                    self.writer.push(Kind::Heartbeat);
                }
                request = requests.recv(), if room => match request {
                    None => return Ok(Ended::Abandoned),
                    Some(request) => {
                        if self.writer.out() > 0 {
                            // Whoever was woken by the same acknowledgement gets into the same frame.
                            tokio::task::yield_now().await;
                        }
                        match self.take(request, requests) {
                            None => {}
                            Some(Asked::Close(answer)) => return Ok(Ended::Close(Some(answer))),
                            Some(Asked::Verify(answer)) => self.verify(answer).await?,
                        }
                    }
                },
                () = stopping.cancelled() => return Ok(Ended::Close(None)),
            }
            self.prove();
            self.consider_roll();
        }
    }

    /// Sends the frame that answers rest on which no lease covers.
    fn prove(&mut self) {
        if self.unproven.is_empty() || self.writer.out() >= self.options.frames_in_flight_max.max(1) as u64 {
            return;
        }
        let waiters = std::mem::take(&mut self.unproven);
        let sequence = self.writer.push(Kind::Heartbeat);
        self.flying.push_back(Flying { sequence, waiters, ..Flying::default() });
    }

    /// Gives an answer that the state of this owner led to, where it is known to be the slot's state still.
    fn answer(&mut self, answer: Answer, result: CommitResult) {
        if matches!(result, Err(CommitError::Conflict { .. })) && !self.shared.lease.holds() {
            self.unproven.push(Waiter { answer, result, rests: Rests::Behind });
        } else {
            // Who asked may be gone.
            answer.send(result).ok();
        }
    }

    /// Takes a request and whatever is queued behind it, as much as one frame holds; gives what else was asked.
    fn take(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) -> Option<Asked> {
        let (mut next, mut asked) = (Some(first), None);
        while let Some(request) = next.take() {
            match request {
                Request::Close { answer } => {
                    asked = Some(Asked::Close(answer));
                    break;
                }
                Request::Verify { answer } => {
                    asked = Some(Asked::Verify(answer));
                    break;
                }
                Request::Commit { steps, named, bytes, answer } => {
                    if self.building.bytes + bytes > self.frame_bytes {
                        self.send();
                    }
                    let sequence = self.writer.next_sequence();
                    let time_ms = self.environment.clock.unix_milliseconds();
                    let judged = {
                        let state = self.shared.state.read();
                        self.overlay.judge(&state.heads, &steps, named, sequence, time_ms)
                    };
                    self.place(judged, bytes, answer);
                }
            }
            if self.building.bytes < self.frame_bytes && self.writer.out() < self.options.frames_in_flight_max as u64 {
                next = requests.try_recv().ok();
            }
        }
        self.send();
        asked
    }

    fn place(&mut self, judged: Judged, bytes: usize, answer: Answer) {
        match judged {
            Judged::Now(result) => self.answer(answer, result),
            Judged::After(sequence, result) => {
                match self.flying.iter_mut().find(|flying| flying.sequence == sequence) {
                    Some(flying) => flying.waiters.push(Waiter { answer, result, rests: Rests::Before }),
                    None => self.building.waiters.push(Waiter { answer, result, rests: Rests::Behind }),
                }
            }
            Judged::Write(commit) => {
                let result = Ok(Committed { revision: commit.revision, repeated: false });
                self.building.waiters.push(Waiter { answer, result, rests: Rests::Carried });
                self.building.commits.push(commit);
                self.building.bytes += bytes;
            }
        }
    }

    /// Sends the frame that was built, where there is one.
    fn send(&mut self) {
        if self.building.commits.is_empty() {
            return;
        }
        let mut flying = std::mem::take(&mut self.building);
        flying.sequence = self.writer.push(Kind::Commit { commits: flying.commits.clone() });
        self.flying.push_back(flying);
    }

    async fn verify(&mut self, answer: oneshot::Sender<()>) -> std::result::Result<(), Stop> {
        let mut accepted = Vec::new();
        let result = self.writer.read_back(&mut accepted).await;
        self.land(&accepted)?;
        result?;
        answer.send(()).ok();
        Ok(())
    }

    async fn settle(&mut self, outcome: Outcome) -> std::result::Result<(), Stop> {
        let mut accepted = Vec::new();
        let result = self.writer.settle(outcome, &mut accepted).await;
        self.land(&accepted)?;
        result
    }

    async fn drain(&mut self) -> std::result::Result<(), Stop> {
        let mut accepted = Vec::new();
        let result = self.writer.drain(&mut accepted).await;
        self.land(&accepted)?;
        result
    }

    /// Carries out what is known accepted, and only then answers.
    fn land(&mut self, accepted: &[u64]) -> std::result::Result<(), Stop> {
        self.shared.lease.renew(self.writer.accepted_sent());
        for sequence in accepted {
            if self.flying.front().is_none_or(|flying| flying.sequence != *sequence) {
                // A sign of life, or the Seal: next to nothing, but years of heartbeats are to be rolled away as well.
                self.bytes_behind += HEADER_BYTES as u64;
                continue;
            }
            let Some(flying) = self.flying.pop_front() else { continue };
            let mut state = self.shared.state.write();
            for commit in &flying.commits {
                if let Err(broken) = state.commit(commit) {
                    let context = format!("revision {} does not follow from the state", commit.revision);
                    return Err(Stop::DataLoss(Error::new(ErrorKind::DataLoss, context).with_source(broken)));
                }
                self.overlay.landed(flying.sequence, commit);
                if let Some(roll) = &mut self.roll {
                    commit.operations.iter().for_each(|operation| roll.changed(&operation.key));
                }
            }
            drop(state);
            self.bytes_behind += flying.bytes as u64;
            for Waiter { answer, result, rests } in flying.waiters {
                match rests {
                    Rests::Carried | Rests::Behind => drop(answer.send(result)),
                    Rests::Before => self.answer(answer, result),
                }
            }
        }
        Ok(())
    }

    fn consider_roll(&mut self) {
        if self.roll.is_some() || self.bytes_behind < self.roll_at {
            return;
        }
        let state = self.shared.state.read();
        if self.bytes_behind < state.heads.bytes() {
            return;
        }
        let acceptor = self.writer.acceptor();
        let generation = Generation { epoch: acceptor.epoch(), suffix: self.environment.random.bits() };
        let manner = Manner {
            clock: Arc::clone(&self.environment.clock),
            call_timeout: self.options.call_timeout,
            resends_max: self.options.resends_max,
        };
        self.roll = Some(Roll::new(&self.log, acceptor, generation, &state.heads, self.frame_bytes, &manner));
    }

    async fn step(&mut self, event: Event) -> std::result::Result<(), Stop> {
        let Some(roll) = &mut self.roll else { return Ok(()) };
        match roll.step(event, &self.shared.state).await {
            Ok(false) => Ok(()),
            Ok(true) => self.seal().await,
            Err(error) => {
                let generation = roll.generation();
                tracing::warn!(%error, "the slot keeps its generation, for the next one cannot be written");
                self.roll = None;
                self.roll_at = self.bytes_behind + self.options.roll_bytes;
                self.delete(generation);
                Ok(())
            }
        }
    }

    /// The short last step of a roll, in which commands wait.
    async fn seal(&mut self) -> std::result::Result<(), Stop> {
        self.drain().await?;
        let Some(next) = self.roll.as_ref().map(Roll::generation) else { return Ok(()) };
        self.writer.push(Kind::Seal { next });
        self.drain().await?;
        let Some(roll) = self.roll.take() else { return Ok(()) };
        let sealed = self.writer.acceptor().generation();
        let (rest, opened) = roll.rest(self.writer.acceptor(), &self.shared.state.read().heads);
        self.writer = roll.finish(rest, opened, self.options.resends_max).await?;
        self.shared.lease.renew(self.writer.accepted_sent());
        self.bytes_behind = 0;
        self.roll_at = self.options.roll_bytes;
        self.delete(sealed);
        Ok(())
    }

    /// Deletes a generation beside the owner's work. What stays is deleted when the slot is opened the next time.
    fn delete(&self, generation: Generation) {
        let (log, id) = (Arc::clone(&self.log), generation.log(self.writer.acceptor().slot()));
        let followed = self.beats;
        let stopping = self.environment.stopping().clone();
        self.environment.spawn(async move {
            if followed {
                // Those who follow it are to read the Seal, and not the whole slot again.
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(limits::JOURNAL_SEALED_AGE) => {}
                }
            }
            let mut delay = limits::JOURNAL_RESEND_DELAY;
            for _ in 0..limits::JOURNAL_RESENDS {
                match within(&id, "deleting it", log.delete(LogSpec::Single(id.clone()))).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(log = %id, %error, "a generation that is done with stays"),
                }
                tokio::time::sleep(delay).await;
                delay *= 2;
            }
        });
    }

    /// Commits what is queued and releases the slot.
    async fn close(&mut self, requests: &mut mpsc::Receiver<Request>) -> std::result::Result<(), Stop> {
        requests.close();
        let mut also = Vec::new();
        while let Some(request) = requests.recv().await {
            if self.writer.out() >= self.options.frames_in_flight_max.max(1) as u64 {
                self.drain().await?;
            }
            also.extend(self.take(request, requests));
        }
        self.drain().await?;
        while !self.unproven.is_empty() {
            self.prove();
            self.drain().await?;
        }
        // Whoever reads the Release announces at once.
        self.shared.lease.end();
        self.writer.push(Kind::Release);
        self.drain().await?;
        if let Some(roll) = self.roll.take() {
            self.delete(roll.generation());
        }
        Ok(())
    }

    /// Answers everything that is out, and says why.
    fn fail(&mut self, stop: Stop) -> CommitError {
        let (carried, why) = match stop {
            Stop::Fenced { epoch } => (CommitError::Fenced { epoch }, CommitError::Fenced { epoch }),
            Stop::DataLoss(error) => {
                let reason = error.to_string();
                (CommitError::Unknown { reason: reason.clone() }, CommitError::DataLoss { reason })
            }
            Stop::GaveUp { possible, error } => {
                let reason = error.to_string();
                let why = CommitError::Unavailable { reason: reason.clone() };
                (if possible { CommitError::Unknown { reason } } else { why.clone() }, why)
            }
        };
        tracing::warn!(slot = self.writer.acceptor().slot(), %why, "gives the slot up");
        let flying = self.flying.drain(..).chain([std::mem::take(&mut self.building)]);
        let waiters = flying.flat_map(|flying| flying.waiters).chain(std::mem::take(&mut self.unproven));
        for waiter in waiters {
            let error = if waiter.rests == Rests::Carried { &carried } else { &why };
            waiter.answer.send(Err(error.clone())).ok();
        }
        why
    }
}

async fn until(moment: Instant) {
    tokio::time::sleep_until(moment).await;
}

/// The next event of a roll; never one where none is under way.
async fn rolled(roll: &mut Option<Roll>) -> Option<Event> {
    match roll {
        Some(roll) => Some(roll.event().await),
        None => std::future::pending().await,
    }
}
