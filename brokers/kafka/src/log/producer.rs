//! Appends: queued in the order in which they are called, bounded, and answered when the broker has them.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::RwLock;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use tidegate_backbone::budget::Permit;
use tidegate_backbone::{Appended, Error, ErrorKind, Position, Result};
use tidegate_schemas::limits;
use tokio::sync::oneshot;

use super::calls::Calls;
use crate::context::{Context, Health};
use crate::error::{append_failed, closed, kind_of};
use crate::record::Encoded;

/// How an append ends.
pub(crate) type Outcome = Result<Appended>;

/// What is under way, against what may be.
#[derive(Debug)]
struct Bound {
    records: AtomicUsize,
    bytes: AtomicUsize,
    records_max: usize,
    bytes_max: usize,
}

/// An append that waits for its acknowledgement.
pub(crate) struct Pending {
    answer: Option<oneshot::Sender<Outcome>>,
    log: Arc<str>,
    bytes: usize,
    bound: Arc<Bound>,
    _permit: Permit,
}

impl Pending {
    fn answer(mut self, outcome: Outcome) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(outcome);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.bound.records.fetch_sub(1, Ordering::Relaxed);
        self.bound.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Box<Pending>) {
        match result {
            Ok(message) => {
                self.acknowledged();
                // The client takes a record for delivered whose number the broker has seen before, and then knows no offset.
                // That is no proof: a log that knows nothing of the client takes its second batch for the first where the
                // first was refused, and refuses the first for good when it comes again.
                let outcome = match u64::try_from(message.offset()) {
                    Ok(offset) => Ok(Appended { position: Some(Position(offset)) }),
                    Err(_) => Err(append_failed(&pending.log, Code::DuplicateSequenceNumber)),
                };
                pending.answer(outcome);
            }
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                if matches!(code, Code::Fatal | Code::GaplessGuarantee | Code::OutOfOrderSequenceNumber) {
                    self.fatal.store(true, Ordering::Relaxed);
                }
                if code == Code::MessageTimedOut {
                    self.gave_up();
                }
                let failed = append_failed(&pending.log, code);
                pending.answer(Err(failed));
            }
        }
    }
}

/// A client of the library, and the thread that takes what it tells.
///
/// The library's own thread for this looks ten times a second whether it is to end, and does not rest in the last part of a
/// millisecond before it does: a hundredth of a processor for each client that has nothing to do.
struct Client {
    producer: Arc<BaseProducer<Context>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How often the thread looks whether it is to end. What the client tells it takes at once.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

impl Client {
    fn new(config: &ClientConfig, health: &Arc<Health>) -> Result<Self> {
        let refused = "a Kafka client that appends cannot be made";
        let producer: Arc<BaseProducer<Context>> = BaseProducer::from_config_and_context(config, Context::new(health))
            .map(Arc::new)
            .map_err(|error| Error::new(ErrorKind::Misconfigured, refused).with_source(error))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (told, ends) = (Arc::clone(&producer), Arc::clone(&ended));
        let thread = std::thread::Builder::new().name("tidegate-kafka-told".to_owned()).spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                told.poll(LOOK_INTERVAL);
            }
        });
        let thread =
            thread.map_err(|error| Error::new(ErrorKind::Unavailable, refused.to_owned()).with_source(error))?;
        Ok(Self { producer, ended, thread: Some(thread) })
    }
}

impl Deref for Client {
    type Target = BaseProducer<Context>;

    fn deref(&self) -> &BaseProducer<Context> {
        &self.producer
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}

/// A client that appends, and what replaces it when it has failed for good.
pub(crate) struct Producer {
    config: ClientConfig,
    health: Arc<Health>,
    current: RwLock<Option<Arc<Client>>>,
    bound: Arc<Bound>,
    calls: Arc<Calls>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Producer").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl Producer {
    pub(crate) fn new(
        mut config: ClientConfig,
        bounds: (usize, usize, usize),
        health: &Arc<Health>,
        calls: &Arc<Calls>,
    ) -> Result<Self> {
        // Bounded here, by what the contract counts; the client's own bounds lie a little further.
        config
            .set("queue.buffering.max.messages", (bounds.0 + 1).to_string())
            .set("queue.buffering.max.kbytes", (bounds.1 / 1024 * 2 + 1024).to_string())
            .set("message.max.bytes", bounds.2.to_string())
            .set("batch.size", bounds.2.min(1_000_000).to_string());
        let current = RwLock::new(Some(Arc::new(Client::new(&config, health)?)));
        let bound = Bound {
            records: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            records_max: bounds.0,
            bytes_max: bounds.1,
        };
        Ok(Self { config, health: Arc::clone(health), current, bound: Arc::new(bound), calls: Arc::clone(calls) })
    }

    /// Queues a record for one partition of a topic of the broker; how it ends is told through what is given back. `log` is
    /// what errors call it.
    pub(crate) fn send(
        &self,
        topic: &str,
        partition: i32,
        log: &Arc<str>,
        encoded: Encoded,
    ) -> oneshot::Receiver<Outcome> {
        let (answer, outcome) = oneshot::channel();
        self.send_to(topic, partition, log, encoded, answer);
        outcome
    }

    /// The same, telling it to a sender that is there.
    pub(crate) fn send_to(
        &self,
        topic: &str,
        partition: i32,
        log: &Arc<str>,
        encoded: Encoded,
        answer: oneshot::Sender<Outcome>,
    ) {
        let Encoded { headers, key, value, bytes, permit } = encoded;
        let bound = &self.bound;
        let records = bound.records.fetch_add(1, Ordering::Relaxed) + 1;
        let queued = bound.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let pending =
            Pending { answer: Some(answer), log: Arc::clone(log), bytes, bound: Arc::clone(bound), _permit: permit };
        if records > bound.records_max || (queued > bound.bytes_max && records > 1) {
            return pending.answer(Err(full(log)));
        }
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return pending.answer(Err(error)),
        };
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, Box::new(pending))
            .partition(partition)
            .payload(&value[..]);
        record.key = key.as_ref().map(|key| key.as_bytes().as_ref());
        record.headers = headers;
        if let Err((error, record)) = client.send(record) {
            let refused = refused(log, error, &client);
            record.delivery_opaque.answer(Err(refused));
        }
    }

    /// Lets the client find the topic's leader before the first append. Waits.
    pub(crate) fn find_leader(&self, topic: &str) {
        if let Ok(client) = self.client()
            && let Err(error) = client.client().fetch_metadata(Some(topic), limits::KAFKA_ASK_TIMEOUT)
        {
            tracing::debug!(%error, topic, "the Kafka client looks for a leader by itself");
        }
    }

    /// The client, or another in its place where it has failed for good.
    fn client(&self) -> Result<Arc<Client>> {
        {
            let current = self.current.read();
            let client = current.as_ref().ok_or_else(closed)?;
            if !client.client().context().fatal.load(Ordering::Relaxed) {
                return Ok(Arc::clone(client));
            }
        }
        let mut current = self.current.write();
        let client = current.as_ref().ok_or_else(closed)?;
        if !client.client().context().fatal.load(Ordering::Relaxed) {
            return Ok(Arc::clone(client));
        }
        let reason = client.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"));
        tracing::warn!(reason, "the Kafka client that appends has failed for good or stands still, and is made anew");
        let made = Arc::new(Client::new(&self.config, &self.health)?);
        if let Some(failed) = current.replace(Arc::clone(&made)) {
            self.discard(failed);
        }
        Ok(made)
    }

    /// Lets go of a client where waiting is allowed.
    fn discard(&self, client: Arc<Client>) {
        let job = move || drop(client);
        if let Err(error) = self.calls.push(job) {
            tracing::debug!(%error, "a Kafka client is let go of at once");
        }
    }

    /// Lets go of the client and of what is under way, after waiting for that a while if told so. Not for a task of the
    /// runtime.
    pub(crate) fn close(&self, flush: bool) {
        let client = self.current.write().take();
        if let Some(client) = client
            && flush
        {
            let _ = client.flush(limits::KAFKA_CLOSE_TIMEOUT);
        }
    }
}

/// What the client did not take has no effect.
fn refused(log: &str, error: KafkaError, client: &Client) -> Error {
    let kind = match error.rdkafka_error_code() {
        Some(Code::QueueFull) => return full(log),
        Some(Code::Fatal) => {
            // The next append finds another client.
            client.client().context().fatal.store(true, Ordering::Relaxed);
            ErrorKind::Unavailable
        }
        Some(code) => match kind_of(code) {
            ErrorKind::Unknown => ErrorKind::Unavailable,
            kind => kind,
        },
        None => ErrorKind::Misconfigured,
    };
    Error::new(kind, format!("an append to {log} was refused")).with_source(error)
}

fn full(log: &str) -> Error {
    let kind = ErrorKind::Backpressure { retry_after: limits::APPEND_RETRY_AFTER };
    Error::new(kind, format!("too many appends wait for Kafka; the one to {log} was not queued"))
}

#[cfg(test)]
mod tests {
    use tidegate_backbone::Environment;

    use super::*;

    #[test]
    fn a_client_that_has_failed_for_good_is_replaced() {
        let health = Health::new(Arc::clone(&Environment::system().clock));
        let calls = Arc::new(Calls::new(1).unwrap());
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1");
        let producer = Producer::new(config, (10, 1_000, 1_000_000), &health, &calls).unwrap();
        let first = producer.client().unwrap();
        // The control: one that works stays.
        assert!(Arc::ptr_eq(&first, &producer.client().unwrap()));
        first.client().context().fatal.store(true, Ordering::Relaxed);
        let second = producer.client().unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &producer.client().unwrap()));
        drop((first, second));
        producer.close(false);
        assert_eq!(producer.client().err().map(|error| error.kind().clone()), Some(ErrorKind::Closed));
        calls.close();
    }
}
