//! What the bare client does against a real broker: the figures in `docs/probes.md`, from which the readers are designed.
//!
//! ```text
//! cargo run -p tidegate-kafka --example probe -- HOST:PORT depth | interfere [THROUGH] | many COUNT | churn
//! ```
//!
//! `THROUGH` is a second address that the broker advertises as `HOST:PORT`: connections to `HOST:PORT` are taken by the
//! probe itself, passed on to `THROUGH`, and cut again and again.

#![expect(clippy::disallowed_methods, reason = "a probe reads the clock and blocks; nothing else runs beside it")]
#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList};

type Answer = Result<i64, String>;

struct Answers;

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = Box<SyncSender<Answer>>;

    fn delivery(&self, result: &DeliveryResult<'_>, to: Self::DeliveryOpaque) {
        let answer = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.to_string()),
        };
        let _ = to.send(answer);
    }
}

fn config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("reconnect.backoff.max.ms", "500");
    config
}

fn producer(address: &str) -> ThreadedProducer<Answers> {
    config(address)
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create_with_context(Answers)
        .expect("the client can be made")
}

fn consumer(address: &str, fetch_wait: Duration) -> Arc<BaseConsumer> {
    let consumer = config(address)
        .set("group.id", "tidegate-probe")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", fetch_wait.as_millis().to_string())
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.max.messages.kbytes", "256")
        .set("max.partition.fetch.bytes", "262144")
        .create();
    Arc::new(consumer.expect("the client can be made"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = arguments.first().expect("the address of a broker");
    let rest = arguments.get(2).map(String::as_str);
    match arguments.get(1).map(String::as_str) {
        Some("depth") => depth(address).await,
        Some("interfere") => interfere(address, rest).await,
        Some("many") => many(address, rest.and_then(|count| count.parse().ok()).expect("a number of partitions")).await,
        Some("churn") => churn(address).await,
        _ => panic!("depth, interfere, many or churn"),
    }
}

static CREATED: AtomicU64 = AtomicU64::new(0);

async fn create(address: &str, partitions: i32) -> String {
    let admin: AdminClient<DefaultClientContext> = config(address).create().expect("the client can be made");
    let name = format!("probe.{}.{}", std::process::id(), CREATED.fetch_add(1, Ordering::Relaxed));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(60)));
    let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
    let results = admin.create_topics([&topic], &options).await.expect("the broker answers");
    assert!(results[0].is_ok(), "{results:?}");
    name
}

fn at(topic: &str, partitions: std::ops::Range<i32>, offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, partition, offset).expect("a valid place");
    }
    list
}

fn send(producer: &ThreadedProducer<Answers>, topic: &str, partition: i32, body: &[u8], to: &SyncSender<Answer>) {
    let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(to.clone()));
    let sent = producer.send(record.partition(partition).payload(body));
    assert!(sent.is_ok(), "{:?}", sent.err().map(|(error, _)| error));
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    format!("p50 {} us, p99 {} us, most {} us", at(0.5), at(0.99), at(1.0))
}

/// Append, acknowledgement, and the record on the own tail, so many at once.
async fn depth(address: &str) {
    let topic = create(address, 1).await;
    for depth in [1, 8, 64] {
        let (producer, consumer) = (producer(address), consumer(address, Duration::from_millis(100)));
        let (to, answers) = sync_channel(1024);
        send(&producer, &topic, 0, &[0; 300], &to);
        let first = answers.recv().expect("an answer").expect("an acknowledgement");
        consumer.incremental_assign(&at(&topic, 0..1, Offset::Offset(first))).expect("assigned");
        let queue = consumer.split_partition_queue(&topic, 0).expect("a queue");
        while queue.poll(Duration::from_secs(5)).is_none() {}
        let (mut acknowledged, mut read, mut next) = (Vec::new(), Vec::new(), first + 1);
        let began = Instant::now();
        let mut began_rounds = 0;
        while began.elapsed() < Duration::from_secs(5) {
            let start = Instant::now();
            began_rounds += 1;
            for _ in 0..depth {
                send(&producer, &topic, 0, &[1; 300], &to);
            }
            for _ in 0..depth {
                let offset = answers.recv().expect("an answer").expect("an acknowledgement");
                assert_eq!(offset, next, "acknowledged positions follow each other");
                next += 1;
                acknowledged.push(start.elapsed());
            }
            let mut seen = 0;
            while seen < depth {
                if let Some(message) = queue.poll(Duration::from_secs(5)) {
                    message.expect("a record");
                    seen += 1;
                    read.push(start.elapsed());
                }
            }
        }
        println!(
            "depth {depth}: {:.0} records/s; acknowledged {}; on the tail {}",
            f64::from(began_rounds * depth) / began.elapsed().as_secs_f64(),
            percentiles(acknowledged),
            percentiles(read),
        );
    }
}

/// Passes connections on and cuts all of them every 300 ms.
fn proxy(listen: &str, through: &str, cuts: &Arc<AtomicU64>, ended: &Arc<AtomicBool>) {
    let listener = TcpListener::bind(listen).expect("the address is free");
    let (through, open) = (through.to_owned(), Arc::new(parking_lot::Mutex::new(Vec::<TcpStream>::new())));
    let taken = Arc::clone(&open);
    let pump = |mut from: TcpStream, mut to: TcpStream| {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    };
    thread("accept", move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&through) else { continue };
            let pair = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
            taken.lock().push(client.try_clone().expect("a handle"));
            thread("up", move || pump(pair.0, server));
            thread("down", move || pump(pair.1, client));
        }
    });
    let (cuts, ended) = (Arc::clone(cuts), Arc::clone(ended));
    thread("cut", move || {
        while !ended.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(300));
            for stream in open.lock().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
                cuts.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).expect("a thread can be started");
}

/// Two writers on one partition; the positions that the first was told, and what stands there.
async fn interfere(address: &str, through: Option<&str>) {
    let (cuts, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    if let Some(through) = through {
        proxy(address, through, &cuts, &ended);
    }
    let topic = create(address, 1).await;
    let (ours, theirs) = (producer(address), producer(address));
    let (to, answers) = sync_channel(100_000);
    let (their_to, _their_answers) = sync_channel(100_000);
    let began = Instant::now();
    let mut sent = 0_u64;
    while began.elapsed() < Duration::from_secs(10) {
        send(&ours, &topic, 0, &sent.to_le_bytes(), &to);
        sent += 1;
        if sent.is_multiple_of(3) {
            send(&theirs, &topic, 0, b"other", &their_to);
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    let answers: Vec<Answer> =
        (0..sent).map(|_| answers.recv_timeout(Duration::from_secs(400)).expect("an answer")).collect();
    ended.store(true, Ordering::SeqCst);
    let told: Vec<(u64, i64)> =
        (0..sent).zip(&answers).filter_map(|(n, answer)| Some((n, *answer.as_ref().ok()?))).collect();
    let gaps = told.windows(2).filter(|pair| pair[1].1 != pair[0].1 + 1).count();
    let back = told.windows(2).filter(|pair| pair[1].1 <= pair[0].1).count();
    let consumer = consumer(address, Duration::from_millis(100));
    let (_, end) = consumer.fetch_watermarks(&topic, 0, Duration::from_secs(10)).expect("an end");
    consumer.incremental_assign(&at(&topic, 0..1, Offset::Offset(0))).expect("assigned");
    let queue = consumer.split_partition_queue(&topic, 0).expect("a queue");
    let mut stored: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    let mut offset = -1;
    while offset + 1 < end {
        if let Some(message) = queue.poll(Duration::from_secs(5)) {
            let message = message.expect("a record");
            offset = message.offset();
            if let Ok(number) = <[u8; 8]>::try_from(message.payload().unwrap_or_default()) {
                stored.entry(u64::from_le_bytes(number)).or_default().push(offset);
            }
        }
    }
    let wrong = told.iter().filter(|(n, offset)| stored.get(n).is_none_or(|at| at != &vec![*offset])).count();
    let twice = stored.values().filter(|at| at.len() > 1).count();
    println!(
        "{} connections cut; {sent} sent, {} acknowledged, {} stored, {twice} of them twice; acknowledged positions: \
         {gaps} jumps, {back} that go back, {wrong} where something else stands",
        cuts.load(Ordering::SeqCst),
        told.len(),
        stored.len(),
    );
}

fn status(process: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default().to_owned();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Processor time of a process so far, in hundredths of a second.
fn ticks(process: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let rest = text.rsplit(')').next().unwrap_or_default().to_owned();
    let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0)
}

/// Many partitions: creating them, and reading all of them while nothing happens. `BROKER` is the broker's process.
async fn many(address: &str, count: i32) {
    let broker = std::env::var("BROKER").unwrap_or_default();
    let before = (status("self", "VmRSS"), status(&broker, "VmRSS"));
    for fetch_wait in [100, 500] {
        let start = Instant::now();
        let topic = create(address, count).await;
        println!("{count} partitions created in {} ms", start.elapsed().as_millis());
        let consumer = consumer(address, Duration::from_millis(fetch_wait));
        let start = Instant::now();
        consumer.incremental_assign(&at(&topic, 0..count, Offset::Offset(0))).expect("assigned");
        let queues: Vec<_> = (0..count).map(|n| consumer.split_partition_queue(&topic, n).expect("a queue")).collect();
        let assigned = start.elapsed();
        std::thread::sleep(Duration::from_secs(5));
        let (own, brokers) = (ticks("self"), ticks(&broker));
        std::thread::sleep(Duration::from_secs(10));
        println!(
            "fetch.wait.max.ms {fetch_wait}: assigned in {} ms; idle: reader {:.1} % of a core, broker {:.1} %; reader +{} MiB \
             and {} threads, broker +{} MiB",
            assigned.as_millis(),
            (ticks("self") - own) as f64 / 10.0,
            (ticks(&broker) - brokers) as f64 / 10.0,
            (status("self", "VmRSS") - before.0) / 1024,
            status("self", "Threads"),
            status(&broker, "VmRSS").saturating_sub(before.1) / 1024,
        );
        let (producer, (to, answers)) = (producer(address), sync_channel(1));
        let mut times = Vec::new();
        for n in 0..100 {
            let partition = n * 7 % count;
            let start = Instant::now();
            send(&producer, &topic, partition, b"x", &to);
            let queue = &queues[usize::try_from(partition).expect("not negative")];
            while queue.poll(Duration::from_secs(5)).is_none() {}
            times.push(start.elapsed());
            answers.recv().expect("an answer").expect("an acknowledgement");
        }
        println!("  append to own tail among them: {}", percentiles(times));
        drop(queues);
    }
}

/// One consumer under load, whose partitions come and go a thousand times.
async fn churn(address: &str) {
    let topic = create(address, 32).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (stop, topic, producer) = (Arc::clone(&stop), topic.clone(), producer(address));
        std::thread::Builder::new().spawn(move || {
            let (to, answers) = sync_channel(100_000);
            let (mut counts, mut acknowledged) = ([0_u64; 32], 0);
            while !stop.load(Ordering::SeqCst) {
                for (partition, count) in (0..).zip(&mut counts) {
                    send(&producer, &topic, partition, &count.to_le_bytes(), &to);
                    *count += 1;
                }
                std::thread::sleep(Duration::from_millis(2));
                acknowledged += answers.try_iter().count() as u64;
            }
            let total: u64 = counts.iter().sum();
            for _ in acknowledged..total {
                answers.recv().expect("an answer").expect("an acknowledgement");
            }
            total
        })
    };
    let consumer = consumer(address, Duration::from_millis(100));
    let (mut next, mut queues) = ([0_i64; 32], BTreeMap::new());
    let (mut stray, mut assigns, mut unassigns, mut firsts) = (0_u64, Vec::new(), Vec::new(), Vec::new());
    let read = |queues: &BTreeMap<i32, rdkafka::consumer::base_consumer::PartitionQueue<_>>, next: &mut [i64; 32]| {
        for (partition, queue) in queues {
            let place = &mut next[usize::try_from(*partition).expect("not negative")];
            while let Some(message) = queue.poll(Duration::ZERO) {
                let message = message.expect("a record");
                assert_eq!((message.partition(), message.offset()), (*partition, *place), "no gap and nothing twice");
                *place += 1;
            }
        }
    };
    for n in 0..1000 {
        let partition = n * 13 % 32;
        let index = usize::try_from(partition).expect("not negative");
        if queues.remove(&partition).is_some() {
            let start = Instant::now();
            consumer.incremental_unassign(&at(&topic, partition..partition + 1, Offset::Invalid)).expect("unassigned");
            unassigns.push(start.elapsed());
        }
        let start = Instant::now();
        // In this order: what is fetched between an assignment and the split goes to the main queue.
        let queue = consumer.split_partition_queue(&topic, partition).expect("a queue");
        consumer
            .incremental_assign(&at(&topic, partition..partition + 1, Offset::Offset(next[index])))
            .expect("assigned");
        queues.insert(partition, queue);
        assigns.push(start.elapsed());
        let before = next[index];
        while next[index] == before && start.elapsed() < Duration::from_secs(20) {
            read(&queues, &mut next);
            if consumer.poll(Duration::ZERO).is_some() {
                stray += 1;
            }
        }
        firsts.push(start.elapsed());
    }
    stop.store(true, Ordering::SeqCst);
    let sent = load.expect("a thread").join().expect("the load ends");
    let end = Instant::now();
    while next.iter().sum::<i64>() < i64::try_from(sent).expect("few") && end.elapsed() < Duration::from_secs(20) {
        read(&queues, &mut next);
    }
    println!("{sent} sent, {} read in order without a gap; {stray} on the main queue", next.iter().sum::<i64>());
    println!(
        "assign: {}\nunassign: {}\nfirst record: {}",
        percentiles(assigns),
        percentiles(unassigns),
        percentiles(firsts)
    );
}
