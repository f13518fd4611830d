//! Many producers that publish at once, each one event after the other, and a ledger outside the gateway of what was
//! acknowledged.
//!
//! A producer sends event `n` until it is acknowledged and only then `n + 1`, as a careful client does: where no answer
//! came the outcome is unknown, and the same id goes out again, also to the next process on the same data. So after any
//! history each producer's events `0..acknowledged` must be on the topic, in order, and event `acknowledged` may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::PATIENCE;
use crate::client::Client;

/// A request that publishes one event.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its header fields.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

/// Makes a producer's event `n`, whose id is [`id`].
pub type Make = fn(usize, u64) -> Message;

/// The producers of one topic, with what each has had acknowledged.
#[derive(Debug)]
pub struct Load {
    topic: Arc<str>,
    make: Make,
    /// How many each publishes at most.
    each: u64,
    acknowledged: Arc<[AtomicU64]>,
}

/// Producers at work.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    producers: JoinSet<Counts>,
}

/// What the producers and whoever started them tell each other.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    put_off: AtomicU64,
}

/// What a stretch of load came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Receipts with status 202.
    pub acknowledged: u64,
    /// Answers 429, 503, 504 and 507: sent again.
    pub put_off: u64,
    /// Requests without an answer.
    pub unanswered: u64,
}

impl Load {
    /// Producers that have published nothing yet.
    pub fn new(topic: &str, producers: usize) -> Self {
        Self::of(topic, producers, message)
    }

    /// The same with events of the test's own.
    pub fn of(topic: &str, producers: usize, make: Make) -> Self {
        let acknowledged = (0..producers).map(|_| AtomicU64::new(0)).collect();
        Self { topic: Arc::from(topic), make, each: u64::MAX, acknowledged }
    }

    /// Each producer ends when it has published so many.
    pub fn up_to(self, each: u64) -> Self {
        Self { each, ..self }
    }

    /// The topic that it publishes to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// For each producer, how many of its events were acknowledged.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }

    /// Starts all producers. Each goes on until [`Running::finish`] is called or no answer comes.
    pub fn begin(&self, client: &Client) -> Running {
        let shared = Arc::new(Shared::default());
        let mut producers = JoinSet::new();
        for producer in 0..self.acknowledged.len() {
            let (client, topic) = (client.clone(), Arc::clone(&self.topic));
            let (shared, acknowledged) = (Arc::clone(&shared), Arc::clone(&self.acknowledged));
            let (make, each) = (self.make, self.each);
            producers.spawn(async move {
                let next = |n| (n < each).then(|| make(producer, n));
                produce(&client, &topic, producer, next, &acknowledged[producer], &shared).await
            });
        }
        Running { shared, producers }
    }
}

impl Running {
    /// Lets every producer end after the request that it has in hand, and adds up what they did.
    pub async fn finish(self) -> Counts {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.ended().await
    }

    /// Waits until a publish was put off: a fault that ends before has shown nothing, since those that were in hand when it began
    /// wait for its end where their deadline allows.
    ///
    /// # Panics
    ///
    /// Where none ever is.
    pub async fn wait_until_put_off(&self) {
        let began = Instant::now();
        while self.shared.put_off.load(Ordering::SeqCst) == 0 {
            assert!(began.elapsed() < PATIENCE, "the fault met no publish, so that it shows nothing");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every producer has published what it was to, see [`Load::up_to`], and adds up what they did.
    pub async fn ended(mut self) -> Counts {
        let mut total = Counts::default();
        while let Some(counts) = self.producers.join_next().await {
            let counts = counts.unwrap_or_else(|error| panic!("a producer failed: {error}"));
            total.acknowledged += counts.acknowledged;
            total.unanswered += counts.unanswered;
        }
        total.put_off = self.shared.put_off.load(Ordering::SeqCst);
        total
    }
}

async fn produce(
    client: &Client,
    topic: &str,
    producer: usize,
    next: impl Fn(u64) -> Option<Message>,
    acknowledged: &AtomicU64,
    shared: &Shared,
) -> Counts {
    let (mut counts, path) = (Counts::default(), format!("/topics/{topic}"));
    while !shared.stop.load(Ordering::SeqCst) {
        let n = acknowledged.load(Ordering::SeqCst);
        let (id, Some(Message { headers, body })) = (id(producer, n), next(n)) else { break };
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        match client.post(&path, &headers, body).await {
            Ok(answer) if answer.status == 202 => {
                let receipt = answer.json();
                assert_eq!(receipt["id"], id.as_str(), "the receipt is that of another event: {answer}");
                acknowledged.store(n + 1, Ordering::SeqCst);
                counts.acknowledged += 1;
            }
            Ok(answer) if matches!(answer.status, 429 | 503 | 504 | 507) => {
                shared.put_off.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(answer) => panic!("the gateway refuses a good event: {answer}"),
            Err(_) => {
                counts.unanswered += 1;
                break;
            }
        }
    }
    counts
}

/// A small event with JSON data, in binary mode.
fn message(producer: usize, n: u64) -> Message {
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", id(producer, n)),
        ("ce-source", source(producer)),
        ("ce-type", "com.example.load".to_owned()),
        ("ce-partitionkey", key(producer)),
    ];
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Message { headers, body: payload(producer, n).into() }
}

/// The id of a producer's event `n`.
pub fn id(producer: usize, n: u64) -> String {
    format!("p{producer}-{n}")
}

/// Producer and number of an id.
pub fn parse_id(id: &str) -> Option<(usize, u64)> {
    let (producer, n) = id.strip_prefix('p')?.split_once('-')?;
    Some((producer.parse().ok()?, n.parse().ok()?))
}

/// The source of a producer's events.
pub fn source(producer: usize) -> String {
    format!("/load/p{producer}")
}

/// The key of a producer's events.
pub fn key(producer: usize) -> String {
    format!("key-{producer}")
}

/// The payload of a producer's event `n`: JSON of varying length that follows from the two numbers, so that a changed
/// byte shows.
pub fn payload(producer: usize, n: u64) -> String {
    let length = ((n.wrapping_mul(37)).wrapping_add(producer as u64 * 101)) % 700;
    let filler: String = (0..length).map(|at| char::from(b'a' + ((at + n) % 26) as u8)).collect();
    format!(r#"{{"producer":{producer},"n":{n},"filler":"{filler}"}}"#)
}
