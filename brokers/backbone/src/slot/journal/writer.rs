//! Writing one generation: frames in order, and which of them are known accepted.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tidegate_schemas::limits;
use tokio::time::Instant;

use crate::environment::Clock;
use crate::error::{Applied, Error, ErrorKind, Result};
use crate::log::{Appended, BoxFuture, LogId, PartitionLog, Position, Record};
use crate::slot::accept::{Acceptor, Link, Phase, Verdict};
use crate::slot::acknowledge::{Progress, Told, Window};
use crate::slot::frame::{Frame, Kind, hash};
use crate::slot::reader::{data_loss, decode, within_time};

/// Why an owner writes no more.
#[derive(Debug)]
pub(super) enum Stop {
    /// Another epoch was announced. What is not accepted by now never will be.
    Fenced { epoch: u64 },
    /// Frames that were relied on are gone or damaged.
    DataLoss(Error),
    /// The log did not take a frame in all attempts, and the epoch is given up.
    GaveUp {
        /// Whether the frames that are out can still appear.
        possible: bool,
        /// What happened last.
        error: Error,
    },
}

/// What came of the first frame of an epoch.
pub(super) enum Begun {
    /// It was read back, accepted.
    Owner(Box<Writer>),
    /// It will not be accepted: look at the slot again.
    Void,
    /// Another owner was faster.
    Fenced { epoch: u64, owner: u64 },
}

/// The outcome of one append.
pub(super) type Outcome = (u64, Result<Appended>);

#[derive(Debug)]
struct Flight {
    bytes: Bytes,
    link: Link,
    /// When it was sent first, since the machine booted.
    sent: Duration,
}

/// How a log is asked.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub(super) clock: Arc<dyn Clock>,
    /// What one call may take until its outcome is unknown.
    pub(super) call_timeout: Duration,
    /// How often a frame is sent again; none for as long as it takes.
    pub(super) resends_max: Option<u32>,
}

/// The writing end of one generation, for one owner.
pub(super) struct Writer {
    log: Arc<dyn PartitionLog>,
    id: LogId,
    acceptor: Acceptor,
    window: Window,
    /// Frames that are not known accepted, in the order of their sequences.
    flights: VecDeque<Flight>,
    /// The hash of the last frame that was sent.
    last_hash: u64,
    outcomes: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// Whether a frame that is out can stand in the log.
    possible: bool,
    last_error: Option<Error>,
    manner: Manner,
    /// When the newest frame that is known accepted was sent, since the machine booted.
    accepted_sent: Duration,
    /// When a frame was sent last.
    pushed: Instant,
}

impl Writer {
    /// Appends the first frame of an epoch (an Announce, or the first snapshot frame of a generation) behind what the
    /// acceptor has read, and reads it back.
    pub(super) async fn begin(
        log: Arc<dyn PartitionLog>,
        mut acceptor: Acceptor,
        first: Frame,
        manner: Manner,
    ) -> Result<Begun> {
        let (sent, pushed, timeout) = (manner.clock.since_boot(), Instant::now(), manner.call_timeout);
        let id = acceptor.generation().log(acceptor.slot());
        let bytes = first.encode();
        let mut delay = limits::JOURNAL_RESEND_DELAY;
        let mut last_error = None;
        for _ in 0..limits::JOURNAL_RESENDS {
            // Whatever the append tells, only the log says whether and where the frame counts.
            let append = log.append(&id, Record::Frame(bytes.clone()));
            if let Err(error) = within_time(timeout, &id, "appending to it", append).await {
                last_error = Some(error);
            }
            match read(log.as_ref(), &id, &mut acceptor, timeout, &mut |_| ControlFlow::Continue(())).await {
                Ok(()) => {}
                Err(error) if unreadable(&error) => return Err(error),
                Err(error) => last_error = Some(error),
            }
            if acceptor.epoch() == first.epoch && acceptor.begun() {
                let (Some(owner), Some(anchor)) = (acceptor.owner(), acceptor.read()) else { continue };
                if owner != first.owner {
                    return Ok(Begun::Fenced { epoch: first.epoch, owner });
                }
                return Ok(Begun::Owner(Box::new(Self {
                    window: Window::new(acceptor.last_sequence(), anchor),
                    last_hash: acceptor.last_hash(),
                    log,
                    id,
                    acceptor,
                    flights: VecDeque::new(),
                    outcomes: FuturesUnordered::new(),
                    possible: false,
                    last_error: None,
                    manner,
                    accepted_sent: sent,
                    pushed,
                })));
            }
            if acceptor.epoch() > first.epoch {
                return Ok(Begun::Fenced { epoch: acceptor.epoch(), owner: acceptor.owner().unwrap_or(0) });
            }
            let void = acceptor.begun() && first.previous_hash != acceptor.last_hash();
            if void || matches!(acceptor.phase(), Phase::Sealed(_)) {
                return Ok(Begun::Void);
            }
            pause(&mut delay).await;
        }
        Err(last_error.unwrap_or_else(|| {
            Error::new(ErrorKind::Unavailable, format!("{id} took an append again and again but does not show it"))
        }))
    }

    /// Sends a frame; gives its sequence.
    pub(super) fn push(&mut self, kind: Kind) -> u64 {
        let sequence = self.window.send();
        let frame = Frame {
            slot: self.acceptor.slot(),
            epoch: self.acceptor.epoch(),
            owner: self.acceptor.owner().unwrap_or(0),
            sequence,
            known: self.window.known(),
            previous_hash: self.last_hash,
            kind,
        };
        let bytes = frame.encode();
        self.last_hash = hash(&bytes);
        let link = frame.link(self.last_hash);
        let sent = self.manner.clock.since_boot();
        self.pushed = Instant::now();
        self.append(sequence, &bytes);
        self.flights.push_back(Flight { bytes, link, sent });
        sequence
    }

    /// From now on frames are sent again for as long as it takes, or so often.
    pub(super) fn resend(&mut self, resends_max: Option<u32>) {
        self.manner.resends_max = resends_max;
    }

    /// When the newest frame that is known accepted was sent, since the machine booted.
    pub(super) fn accepted_sent(&self) -> Duration {
        self.accepted_sent
    }

    /// When a frame was sent last.
    pub(super) fn pushed(&self) -> Instant {
        self.pushed
    }

    fn append(&self, sequence: u64, bytes: &Bytes) {
        let id = self.id.clone();
        let (call, timeout) = (self.log.append(&id, Record::Frame(bytes.clone())), self.manner.call_timeout);
        let outcome = async move { (sequence, within_time(timeout, &id, "appending to it", call).await) };
        self.outcomes.push(Box::pin(outcome));
    }

    /// The sequence of the next frame that is pushed.
    pub(super) fn next_sequence(&self) -> u64 {
        self.window.sent() + 1
    }

    /// Frames that are not known accepted.
    pub(super) fn out(&self) -> u64 {
        self.window.out()
    }

    /// The generation's state as the owner knows it.
    pub(super) fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// The next outcome of an append, waiting for one. Losing the race of a `select` loses nothing.
    pub(super) async fn outcome(&mut self) -> Option<Outcome> {
        self.outcomes.next().await
    }

    /// Whether an append has not told its outcome yet.
    pub(super) fn waits(&self) -> bool {
        !self.outcomes.is_empty()
    }

    /// Draws what follows from an outcome. Sequences that are known accepted now are added to `accepted`, in order, also
    /// where this fails.
    pub(super) async fn settle(&mut self, outcome: Outcome, accepted: &mut Vec<u64>) -> std::result::Result<(), Stop> {
        self.note(outcome)?;
        if self.advance(accepted)? { self.read_back(accepted).await } else { Ok(()) }
    }

    /// Waits until nothing is out.
    pub(super) async fn drain(&mut self, accepted: &mut Vec<u64>) -> std::result::Result<(), Stop> {
        while self.out() > 0 {
            match self.outcome().await {
                Some(outcome) => self.settle(outcome, accepted).await?,
                None => self.read_back(accepted).await?,
            }
        }
        Ok(())
    }

    fn note(&mut self, (sequence, result): Outcome) -> std::result::Result<(), Stop> {
        let told = match result {
            Ok(Appended { position: Some(position) }) => Told::At(position),
            Ok(Appended { position: None }) => Told::Somewhere,
            Err(error) => {
                if error.applied() == Applied::Unknown {
                    self.possible = true;
                }
                if matches!(error.kind(), ErrorKind::Closed | ErrorKind::DataLoss) {
                    return Err(Stop::GaveUp { possible: self.possible || self.out() > 1, error });
                }
                self.last_error = Some(error);
                Told::Nothing
            }
        };
        self.possible |= told != Told::Nothing;
        self.window.told(sequence, told);
        Ok(())
    }

    /// Takes what is known accepted; gives whether the log must be read back.
    fn advance(&mut self, accepted: &mut Vec<u64>) -> std::result::Result<bool, Stop> {
        loop {
            match self.window.progress() {
                Progress::Wait => return Ok(false),
                Progress::ReadBack => return Ok(true),
                Progress::Accepted { sequence, position } => {
                    let Some(flight) = self.flights.pop_front() else { return Ok(false) };
                    match self.acceptor.accept(&flight.link, position) {
                        Verdict::Accepted => {
                            self.accepted_sent = self.accepted_sent.max(flight.sent);
                            accepted.push(sequence);
                        }
                        verdict => {
                            let context = format!(
                                "{}: frame {sequence}, told at position {position}, is {verdict:?} by the accept rule",
                                self.id
                            );
                            return Err(Stop::DataLoss(Error::new(ErrorKind::DataLoss, context)));
                        }
                    }
                }
            }
        }
    }

    /// Reads the log from the last frame that was relied on to its end, and sends again what is not there.
    pub(super) async fn read_back(&mut self, accepted: &mut Vec<u64>) -> std::result::Result<(), Stop> {
        let mut delay = limits::JOURNAL_RESEND_DELAY;
        let mut attempt = 0;
        while self.manner.resends_max.is_none_or(|max| attempt <= max) {
            self.told().await?;
            if self.possible && self.window.is_untold() {
                // One that was lost needs no reading where it stands right behind what is known the next time. Where a node of
                // the broker has died, its logs may take records long before anybody can begin to read them.
                self.send_again(attempt);
                self.told().await?;
                if !self.advance(accepted)? && self.out() == 0 {
                    self.possible = false;
                    return Ok(());
                }
            }
            match self.read(accepted).await {
                Ok(()) if self.out() == 0 => {
                    self.possible = false;
                    return Ok(());
                }
                Ok(()) => {
                    if attempt > 0 {
                        pause(&mut delay).await;
                    }
                    self.send_again(attempt);
                }
                Err(error) if unreadable(&error) => return Err(Stop::DataLoss(error)),
                Err(error) => {
                    if let ErrorKind::Fenced { epoch } = error.kind() {
                        return Err(Stop::Fenced { epoch: *epoch });
                    }
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Closed)
                        && self.manner.resends_max.is_none()
                    {
                        // Waiting does not bring a log back: another owner has rolled, or it was lost.
                        return Err(Stop::GaveUp { possible: self.possible, error });
                    }
                    self.last_error = Some(error);
                    pause(&mut delay).await;
                }
            }
            attempt += 1;
        }
        let error = self.last_error.take().unwrap_or_else(|| {
            Error::new(ErrorKind::Unavailable, format!("{} does not show frames that it took", self.id))
        });
        Err(Stop::GaveUp { possible: self.possible, error })
    }

    /// Waits until what was sent has told its outcome: before the log's end is asked for, so that reading up to it finds every
    /// frame that was acknowledged.
    async fn told(&mut self) -> std::result::Result<(), Stop> {
        while let Some(outcome) = self.outcomes.next().await {
            self.note(outcome)?;
        }
        Ok(())
    }

    fn send_again(&self, attempt: u32) {
        tracing::debug!(log = %self.id, frames = self.out(), attempt, "sending frames again");
        let first = self.window.known() + 1;
        for (sequence, flight) in (first..).zip(&self.flights) {
            self.append(sequence, &flight.bytes);
        }
    }

    async fn read(&mut self, accepted: &mut Vec<u64>) -> Result<()> {
        let (epoch, owner) = (self.acceptor.epoch(), self.acceptor.owner());
        let (flights, mut known, mut impersonated) = (&mut self.flights, self.window.known(), None);
        let (timeout, accepted_sent) = (self.manner.call_timeout, &mut self.accepted_sent);
        let result = read(self.log.as_ref(), &self.id, &mut self.acceptor, timeout, &mut |link| {
            if link.epoch != epoch || Some(link.owner) != owner {
                // The next owner's Announce: whoever goes on from here, as its follower, reads the rest.
                return ControlFlow::Break(());
            }
            // Frames are recognised by what they hold: one of this place with other content is not this owner's.
            match flights.pop_front().filter(|flight| flight.link.hash == link.hash && impersonated.is_none()) {
                Some(flight) => {
                    known = link.sequence;
                    *accepted_sent = flight.sent.max(*accepted_sent);
                    accepted.push(link.sequence);
                }
                None => impersonated = Some(link.sequence),
            }
            ControlFlow::Continue(())
        })
        .await;
        if let Some(sequence) = impersonated {
            let context = format!("{}: frame {sequence} of this owner's epoch was written by something else", self.id);
            return Err(Error::new(ErrorKind::DataLoss, context));
        }
        let superseded = self.acceptor.epoch() > epoch;
        self.window.read_back(known, self.acceptor.read().unwrap_or_default());
        if superseded {
            let epoch = self.acceptor.epoch();
            let context = format!("{} has another owner since epoch {epoch}", self.id);
            return Err(Error::new(ErrorKind::Fenced { epoch }, context));
        }
        result
    }
}

/// Waits, longer each time.
async fn pause(delay: &mut Duration) {
    tokio::time::sleep(*delay).await;
    *delay = (*delay * 2).min(limits::JOURNAL_RESEND_DELAY_MAX);
}

/// Whether reading again cannot help: the records are lost, damaged, or of a version that is not known.
fn unreadable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::DataLoss | ErrorKind::Misconfigured | ErrorKind::PositionLost { .. })
}

/// Reads the log to its end as it is now, behind what the acceptor has read, after comparing the last frame that was relied
/// on: a broker that lost a tail and refilled it is caught here. `accepted` says of each accepted frame whether to read on.
async fn read(
    log: &dyn PartitionLog,
    id: &LogId,
    acceptor: &mut Acceptor,
    timeout: Duration,
    accepted: &mut (dyn FnMut(&Link) -> ControlFlow<()> + Send),
) -> Result<()> {
    let info = within_time(timeout, id, "asking for its end", log.info(id)).await?;
    let relied = acceptor.last_position();
    let lost = |position: Position, what: &str| {
        Error::new(ErrorKind::DataLoss, format!("{id}: the record at position {position}, which was relied on, {what}"))
    };
    if let Some(position) = relied.filter(|position| *position >= info.end || *position < info.begin) {
        return Err(lost(position, "is gone"));
    }
    let from = relied.or_else(|| acceptor.read().map(Position::next)).unwrap_or_default();
    if from >= info.end {
        return Ok(());
    }
    let mut tail = within_time(timeout, id, "following it", log.tail(id, from)).await?;
    let mut compared = relied.is_none();
    while tail.position() < info.end {
        let batch = within_time(timeout, id, "reading it", tail.next(limits::JOURNAL_READ_BYTES)).await?;
        for stored in &batch.records {
            let (frame, bytes) = decode(id.clone(), stored)?;
            let link = frame.link(hash(bytes));
            if !compared {
                let position = relied.unwrap_or_default();
                if stored.position != position {
                    return Err(lost(position, "is gone"));
                }
                if link.hash != acceptor.last_hash() {
                    return Err(lost(position, "was replaced by another"));
                }
                compared = true;
            }
            if acceptor.read().is_some_and(|read| stored.position <= read) {
                continue;
            }
            match acceptor.accept(&link, stored.position) {
                Verdict::Broken(broken) => return Err(data_loss(acceptor, &link, stored.position, &broken)),
                Verdict::Accepted if accepted(&link).is_break() => return Ok(()),
                _ => {}
            }
        }
    }
    Ok(())
}
