//! The task that owns a slot: takes commands, writes frames, answers when they are known accepted, rolls.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use tidegate_schemas::limits;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::judge::{Judged, Overlay};
use super::roll::{Event, Roll};
use super::writer::{Outcome, Stop, Writer};
use super::{Answer, Change, CommitError, Committed, Options, Request, State};
use crate::environment::Environment;
use crate::log::{LogSpec, PartitionLog};
use crate::slot::frame::{Commit, Generation, Kind};
use crate::slot::reader::within;

type CommitResult = std::result::Result<Committed, CommitError>;

/// What the owner shares with its handles.
pub(super) struct Shared {
    pub(super) state: Arc<RwLock<State>>,
    pub(super) ended: CancellationToken,
}

struct Waiter {
    answer: Answer,
    result: CommitResult,
    /// Whether the frame carries the command itself, or only what the answer rests on.
    carried: bool,
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
    ) -> Self {
        let revision = shared.state.read().heads.revision();
        Self {
            frame_bytes: options.frame_bytes(log.as_ref()),
            roll_at: options.roll_bytes,
            log,
            environment,
            options,
            shared,
            writer,
            flying: VecDeque::new(),
            building: Flying::default(),
            overlay: Overlay::new(revision),
            bytes_behind: 0,
            roll: None,
        }
    }

    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>, bytes_behind: u64) {
        self.bytes_behind = bytes_behind;
        let (why, closed) = match self.serve(&mut requests).await {
            Ok(Ended::Abandoned) => (CommitError::Closed, None),
            Ok(Ended::Close(answer)) => {
                let why = match self.close(&mut requests).await {
                    Ok(()) => CommitError::Closed,
                    Err(stop) => self.fail(stop),
                };
                (why, answer)
            }
            Err(stop) => (self.fail(stop), None),
        };
        {
            let mut state = self.shared.state.write();
            state.ended = Some(why.clone());
            state.watches.close();
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

    async fn serve(&mut self, requests: &mut mpsc::Receiver<Request>) -> std::result::Result<Ended, Stop> {
        let stopping = self.environment.stopping().clone();
        loop {
            let room = self.writer.out() < self.options.frames_in_flight_max.max(1) as u64;
            tokio::select! {
                biased;
                Some(outcome) = self.writer.outcome(), if self.writer.waits() => self.settle(outcome).await?,
                Some(event) = rolled(&mut self.roll) => self.step(event).await?,
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
            self.consider_roll();
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
            Judged::Now(result) => {
                answer.send(result).ok();
            }
            Judged::After(sequence, result) => {
                let waiter = Waiter { answer, result, carried: false };
                match self.flying.iter_mut().find(|flying| flying.sequence == sequence) {
                    Some(flying) => flying.waiters.push(waiter),
                    None => self.building.waiters.push(waiter),
                }
            }
            Judged::Write(commit) => {
                let result = Ok(Committed { revision: commit.revision, repeated: false });
                self.building.waiters.push(Waiter { answer, result, carried: true });
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
        for sequence in accepted {
            if self.flying.front().is_none_or(|flying| flying.sequence != *sequence) {
                continue;
            }
            let Some(flying) = self.flying.pop_front() else { continue };
            let mut state = self.shared.state.write();
            let State { heads, watches, .. } = &mut *state;
            for commit in &flying.commits {
                if let Err(broken) = heads.commit(commit) {
                    let context = format!("revision {} does not follow from the state", commit.revision);
                    let error = crate::Error::new(crate::ErrorKind::DataLoss, context).with_source(broken);
                    return Err(Stop::DataLoss(error));
                }
                self.overlay.landed(flying.sequence, commit);
                for operation in &commit.operations {
                    let value = if let Change::Put(value) = &operation.change { Some(value) } else { None };
                    watches.changed(&operation.key, commit.revision, value);
                    if let Some(roll) = &mut self.roll {
                        roll.changed(&operation.key);
                    }
                }
            }
            drop(state);
            self.bytes_behind += flying.bytes as u64;
            for waiter in flying.waiters {
                waiter.answer.send(waiter.result).ok();
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
        self.roll = Some(Roll::new(&self.log, acceptor, generation, &state.heads, self.frame_bytes));
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
        self.writer = roll.finish(rest, opened).await?;
        self.bytes_behind = 0;
        self.roll_at = self.options.roll_bytes;
        self.delete(sealed);
        Ok(())
    }

    /// Deletes a generation beside the owner's work. What stays is deleted when the slot is opened the next time.
    fn delete(&self, generation: Generation) {
        let (log, id) = (Arc::clone(&self.log), generation.log(self.writer.acceptor().slot()));
        self.environment.spawn(async move {
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
        let building = std::mem::take(&mut self.building);
        for flying in self.flying.drain(..).chain([building]) {
            for waiter in flying.waiters {
                let error = if waiter.carried { &carried } else { &why };
                waiter.answer.send(Err(error.clone())).ok();
            }
        }
        why
    }
}

/// The next event of a roll; never one where none is under way.
async fn rolled(roll: &mut Option<Roll>) -> Option<Event> {
    match roll {
        Some(roll) => Some(roll.event().await),
        None => std::future::pending().await,
    }
}
