//! One reader of one log.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::Message as _;
use tidegate_backbone::budget::Budget;
use tidegate_backbone::{Batch, BoxFuture, Error, ErrorKind, LogId, Position, Result, Stored, Tail};
use tidegate_schemas::limits;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::ends::{Ends, Place};
use super::readers::{Consumer, Reader, Readers, Wake};
use super::sizes::Sizes;
use crate::error::{advice, closed, kind_of};
use crate::record::decode;

/// How long a reader that was given records goes without looking for itself. It is woken; this is for places behind them that
/// hold none, of which the client tells nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a reader may be given nothing before it asks whether there is something. Each time that there is not, twice as
/// long, up to the second figure.
const QUIET: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(40));

/// Readers that are given nothing ask at multiples of this, so that those of one moment are one question to the broker.
const QUIET_TOGETHER: Duration = Duration::from_secs(5);

/// From where on those are counted.
static QUIET_SINCE: OnceLock<Instant> = OnceLock::new();

/// What a tail needs beside its place.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) readers: Arc<Readers>,
    pub(crate) ends: Arc<Ends>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) sizes: Arc<Sizes>,
    pub(crate) memory: Budget,
    pub(crate) closed: CancellationToken,
}

pub(crate) struct KafkaTail {
    id: LogId,
    place: Place,
    source: Source,
    wake: Arc<Wake>,
    reader: Option<Reader>,
    /// Where the next record is looked for, as the caller sees it.
    position: u64,
    /// The offset behind what was taken from the client. Below the position where that was beyond the end.
    fetched: u64,
    /// A record that did not fit into the batch before.
    held: Option<Stored>,
    /// What the client told that is not mended yet.
    trouble: Option<Code>,
    /// Whether the position is known to be behind all that was fetched.
    settled: bool,
    quiet: Quiet,
}

/// Since when a reader was given nothing.
struct Quiet {
    /// When it is asked whether there is something.
    until: Instant,
    wait: Duration,
    /// Whether there was something the last time.
    missed: bool,
}

impl Quiet {
    fn new() -> Self {
        Self { until: together(QUIET.0), wait: QUIET.0, missed: false }
    }

    fn again(&mut self, missed: bool) {
        // A reader that was made anew is given time too.
        self.wait = if missed && !self.missed { QUIET.0 } else { self.wait.saturating_mul(2).min(QUIET.1) };
        self.missed = missed;
        self.until = together(self.wait);
    }
}

/// When at least so much time has passed, and others ask too.
fn together(wait: Duration) -> Instant {
    let (since, now) = (*QUIET_SINCE.get_or_init(Instant::now), Instant::now());
    let steps = (now + wait).saturating_duration_since(since).div_duration_f64(QUIET_TOGETHER).ceil();
    (since + QUIET_TOGETHER.mul_f64(steps)).max(now + wait)
}

/// Whether the broker has something behind an offset that the consumer would give. The consumer is asked too, because records
/// of transactions that are not over are not given; and by that it looks for the leader anew.
async fn is_missing(source: Source, place: Place, id: LogId, offset: u64, consumer: Arc<Consumer>) -> bool {
    match source.ends.one(place.clone(), &id).await {
        Ok((_, end)) if end > offset => {}
        // The client tells by itself where the log is gone, and whoever waits for a leader can do nothing else.
        _ => return false,
    }
    let end = source.calls.run(move || {
        Reader::find_leader(&consumer, &place.0);
        Ok(Reader::end(&consumer, &place))
    });
    // A consumer that cannot tell, where the broker does, stands still as well.
    end.await.is_ok_and(|end| end.is_none_or(|end| end > offset))
}

/// Why a log cannot be read from there.
pub(crate) fn position_lost(id: &LogId, wanted: u64, begin: u64) -> Error {
    Error::new(
        ErrorKind::PositionLost { earliest: Position(begin) },
        format!("position {wanted} of {id} was trimmed; the first that is left is {begin}"),
    )
}

impl KafkaTail {
    pub(crate) async fn open(id: LogId, place: Place, from: Position, source: Source) -> Result<Self> {
        let (begin, end) = source.ends.one(place.clone(), &id).await?;
        if from.0 < begin {
            return Err(position_lost(&id, from.0, begin));
        }
        let mut tail = Self {
            id,
            place,
            source,
            wake: Arc::default(),
            reader: None,
            position: from.0,
            // The broker knows no places beyond the end: what comes before the position is passed over here.
            fetched: from.0.min(end),
            held: None,
            trouble: None,
            settled: true,
            quiet: Quiet::new(),
        };
        tail.attend().await?;
        Ok(tail)
    }

    /// Reads where it reads; opens a reader where it has none.
    async fn attend(&mut self) -> Result<()> {
        if self.reader.is_none() {
            self.held = None;
            let opened = self.source.readers.open(self.place.clone(), self.fetched, &self.wake).await?;
            let consumer = opened.is_new.then(|| opened.consumer());
            self.reader = Some(opened);
            // Of many new topics at a moment few are looked for: the client finds them all within a second, and by one request.
            if let Some(consumer) = consumer
                && let Ok(_finding) = self.source.readers.finding.try_acquire()
            {
                let topic = Arc::clone(&self.place.0);
                let find = self.source.calls.run(move || {
                    Reader::find_leader(&consumer, &topic);
                    Ok(())
                });
                find.await?;
            }
        }
        Ok(())
    }

    /// Takes what has come, as far as it fits.
    fn take(&mut self, bytes_max: usize) -> Vec<Stored> {
        let mut records = Vec::new();
        let mut bytes = 0;
        if let Some(held) = self.held.take() {
            bytes += held.bytes();
            records.push(held);
        }
        let Some(reader) = &self.reader else { return records };
        while bytes < bytes_max && records.len() < limits::KAFKA_BATCH_RECORDS {
            match reader.queue().poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    let offset = u64::try_from(message.offset()).unwrap_or_default();
                    if offset < self.fetched {
                        continue;
                    }
                    self.fetched = offset + 1;
                    if offset < self.position {
                        continue;
                    }
                    let stored = decode(&self.id, &message, &self.source.memory);
                    let size = stored.bytes();
                    if !records.is_empty() && bytes + size > bytes_max {
                        self.held = Some(stored);
                        break;
                    }
                    bytes += size;
                    records.push(stored);
                }
                Some(Err(error)) => {
                    self.trouble = error.rdkafka_error_code();
                    break;
                }
            }
        }
        records
    }

    /// Moves over places that hold no record; gives whether it did.
    fn pass_over(&mut self) -> bool {
        self.settled = true;
        let Some(offset) = self.reader.as_ref().and_then(Reader::offset) else { return false };
        self.fetched = self.fetched.max(offset);
        let moved = offset > self.position;
        self.position = self.position.max(offset);
        moved
    }

    /// Goes on after what the client told, or says why that is not possible.
    async fn mend(&mut self, code: Code) -> Result<()> {
        match code {
            Code::OffsetOutOfRange | Code::AutoOffsetReset | Code::LogTruncation | Code::NoOffset => {
                let (begin, end) = self.source.ends.one(self.place.clone(), &self.id).await?;
                if self.fetched < begin {
                    return Err(position_lost(&self.id, self.position, begin));
                }
                if self.fetched > end || code == Code::LogTruncation {
                    let context = format!(
                        "{} ends at {end}, and was read up to {}: the broker has lost records that it had given",
                        self.id, self.fetched
                    );
                    return Err(Error::new(ErrorKind::DataLoss, context));
                }
                self.reader = None;
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                self.source.ends.one(self.place.clone(), &self.id).await?;
                // It is there after all: the client had not heard of it yet.
                self.reader = None;
            }
            code if kind_of(code) == ErrorKind::Denied => {
                let context = format!("{} cannot be read: {code}{}", self.id, advice(&ErrorKind::Denied));
                return Err(Error::new(ErrorKind::Denied, context));
            }
            // The client goes on by itself.
            code => tracing::debug!(log = %self.id, %code, "the Kafka client tells of a reader"),
        }
        self.trouble = None;
        if self.reader.is_none() {
            // Not at once again, should the broker insist.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Tail for KafkaTail {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            loop {
                self.attend().await?;
                let came = self.wake.came.swap(false, Ordering::AcqRel);
                // No waiting between here and the return: what was taken is given.
                let records = self.take(bytes_max);
                if let Some(last) = records.last() {
                    self.position = last.position.0 + 1;
                    let bytes = records.iter().map(|stored| stored.record.bytes()).sum();
                    self.source.sizes.saw(&self.place, records.len(), bytes);
                    self.settled = false;
                    self.quiet = Quiet::new();
                    return Ok(Batch { records });
                }
                if let Some(code) = self.trouble {
                    self.mend(code).await?;
                    continue;
                }
                if came && self.may_pass_over() && self.pass_over() {
                    return Ok(Batch::default());
                }
                // A reader at rest wakes for nothing else.
                let look = if self.settled || !self.may_pass_over() {
                    self.quiet.until
                } else {
                    self.quiet.until.min(Instant::now() + LOOK_INTERVAL)
                };
                let slept = tokio::select! {
                    () = self.wake.notify.notified() => false,
                    () = self.source.closed.cancelled() => return Err(closed()),
                    () = tokio::time::sleep_until(look) => true,
                };
                if slept && !self.settled && self.may_pass_over() && self.pass_over() {
                    return Ok(Batch::default());
                }
                if slept && Instant::now() >= self.quiet.until {
                    self.look().await?;
                }
            }
        })
    }

    fn position(&self) -> Position {
        Position(self.position)
    }
}

impl KafkaTail {
    /// Asks whether something is there that was not given: then the consumer looks for the leader, and if that does not help,
    /// the next reader is of another consumer. Ends as soon as something comes.
    async fn look(&mut self) -> Result<()> {
        let Some(reader) = &self.reader else { return Ok(()) };
        // Whoever calls may not wait until this has ended, and is not to ask without pause then.
        let missed_before = self.quiet.missed;
        self.quiet.until = together(self.quiet.wait);
        let offset = reader.offset().map_or(self.fetched, |offset| offset.max(self.fetched));
        let asked = is_missing(self.source.clone(), self.place.clone(), self.id.clone(), offset, reader.consumer());
        let missing = tokio::select! {
            biased;
            () = self.wake.notify.notified() => return Ok(()),
            () = self.source.closed.cancelled() => return Err(closed()),
            missing = asked => missing,
        };
        // What came meanwhile is taken first.
        let missing = missing && !self.wake.came.load(Ordering::Acquire);
        self.quiet.again(missing);
        if missing && missed_before {
            tracing::warn!(log = %self.id, offset, "a Kafka client does not read what is there, and another one does");
            reader.mark_stuck();
            self.reader = None;
        }
        Ok(())
    }

    /// Whether there can be places without a record: transactions leave them, and only others make those.
    fn may_pass_over(&self) -> bool {
        matches!(self.id, LogId::Topic { .. })
    }
}
