//! A cluster of which a node dies, and with it the leaders of all streams. What goes through another node is sent to the next
//! leaders by the broker itself.
#![expect(clippy::print_stdout, reason = "the figures of a run show that it did something")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::*;

const STREAMS: u32 = 4;
/// Who publishes to each stream at once, one event after the other each.
const PUBLISHERS: usize = 8;
/// Events that are confirmed of each stream before the node dies, and once more after that.
const EVENTS: usize = 200;
/// What a message is waited for at most that may never be confirmed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Publishes one event to one of the streams; gives whether it was confirmed.
trait Publish: Send + Sync + 'static {
    fn publish(&self, log: LogId, id: String) -> impl Future<Output = bool> + Send;
}

impl Publish for Arc<RabbitBroker> {
    async fn publish(&self, log: LogId, id: String) -> bool {
        self.append(&log, Record::Event(event(&id))).await.is_ok()
    }
}

/// A client with one channel for all streams.
struct Shared {
    channel: Channel,
    prefix: String,
}

impl Publish for Shared {
    async fn publish(&self, log: LogId, id: String) -> bool {
        let LogId::Topic { topic, partition } = log else { panic!("not a topic: {log}") };
        let stream = format!("{}{topic}-{partition}", self.prefix);
        let mut headers = FieldTable::default();
        for (name, value) in [("specversion", "1.0"), ("id", &*id), ("source", "/tests"), ("type", "com.example.test")]
        {
            headers.insert(format!("cloudEvents_{name}").into(), AMQPValue::LongString(LongString::from(value)));
        }
        let properties = BasicProperties::default().with_headers(headers);
        let options = BasicPublishOptions::default();
        let sent = self.channel.basic_publish("".into(), stream.into(), options, b"", properties).await;
        let confirm = sent.expect("the node that it goes to lives");
        matches!(tokio::time::timeout(PATIENCE, confirm).await, Ok(Ok(confirmation)) if confirmation.is_ack())
    }
}

/// Publishes while the node with all leaders is killed; gives of each stream how many confirmed events are not there.
async fn missing_after_the_leaders_died(server: &Broker, name: &str, is_ours: bool) -> Vec<usize> {
    let mut hosts = server.addresses();
    let (first, _first_environment) = open(server.url(), name).await;
    first.create(LogSpec::topic("orders", STREAMS)).await.expect("the topic can be created");
    // Leaders are on the node that was asked to create them, and publishers go to another one.
    hosts.rotate_left(1);
    let second = format!("amqp://{}", hosts.join(","));
    let (broker, environment) = open(&second, name).await;
    let confirmed: Arc<Vec<Mutex<BTreeSet<String>>>> = Arc::new((0..STREAMS).map(|_| Mutex::default()).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let publishers = if is_ours {
        begin(&environment, Arc::new(Arc::clone(&broker)), &confirmed, &stop)
    } else {
        let channel = somebody(&format!("amqp://{}", hosts[0])).await;
        begin(&environment, Arc::new(Shared { channel, prefix: format!("{name}.") }), &confirmed, &stop)
    };
    let least = || confirmed.iter().map(|of| of.lock().len()).min().unwrap_or_default();
    wait_for("events before", || least() >= EVENTS).await;
    server.kill(Some(1)).await;
    let so_far: Vec<usize> = confirmed.iter().map(|of| of.lock().len()).collect();
    wait_for("events after", || confirmed.iter().zip(&so_far).all(|(of, before)| of.lock().len() >= before + EVENTS))
        .await;
    stop.store(true, Ordering::SeqCst);
    for publisher in publishers {
        publisher.await.expect("it publishes");
    }
    server.restart(Some(1)).await;
    let mut missing = Vec::new();
    for (partition, confirmed) in (0..STREAMS).zip(&*confirmed) {
        // The last event of all is behind all others, so whoever has read it has read them.
        let log = LogId::Topic { topic: "orders".into(), partition };
        appended(&broker, &log, "last").await;
        let mut left = confirmed.lock().clone();
        let mut tail = broker.tail(&log, Position::ZERO).await.expect("the stream can be read");
        let mut is_read = false;
        while !is_read {
            let batch = tokio::time::timeout(HANG, tail.next(1 << 20)).await.expect("the tail does not hang");
            for stored in batch.expect("the stream can be read").records {
                let id = event_of(&stored).id().to_string();
                is_read |= id == "last";
                left.remove(&id);
            }
        }
        missing.push(left.len());
    }
    let counts: Vec<usize> = confirmed.iter().map(|of| of.lock().len()).collect();
    println!("{name}: {counts:?} were confirmed, of which {missing:?} are missing");
    broker.close().await;
    missing
}

fn begin<P: Publish>(
    environment: &Environment,
    through: Arc<P>,
    confirmed: &Arc<Vec<Mutex<BTreeSet<String>>>>,
    stop: &Arc<AtomicBool>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let each = (0..STREAMS).flat_map(|partition| (0..PUBLISHERS).map(move |publisher| (partition, publisher)));
    let publish = |(partition, publisher): (u32, usize)| {
        let (through, confirmed, stop) = (Arc::clone(&through), Arc::clone(confirmed), Arc::clone(stop));
        environment.spawn(async move {
            let log = LogId::Topic { topic: "orders".into(), partition };
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                let id = format!("{publisher}-{n}");
                n += 1;
                if through.publish(log.clone(), id.clone()).await {
                    confirmed[partition as usize].lock().insert(id);
                } else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        })
    };
    each.map(publish).collect()
}

async fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + HANG;
    while !is_there() {
        assert!(tokio::time::Instant::now() < deadline, "waited {HANG:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_is_there_when_leaders_die() {
    // `leaders` shows the same on one node.
    if std::env::var("TIDEGATE_FAULTS").as_deref() != Ok("all") {
        return println!("left out without TIDEGATE_FAULTS=all: the node of rabbitmq3 dies that has all leaders");
    }
    let Some(server) = Broker::start("rabbitmq3").await.filter(Broker::is_ours) else { return };
    let missing = missing_after_the_leaders_died(&server, "ours", true).await;
    assert!(missing.iter().all(|count| *count == 0), "{missing:?} were confirmed and are not there");
    // The control: the same with one channel for all streams, which brokers before 4.0 make a mess of.
    let missing = missing_after_the_leaders_died(&server, "shared", false).await;
    assert!(missing.iter().sum::<usize>() > 0, "the broker keeps what goes to several streams on one channel");
}
