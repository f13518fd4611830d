//! The broker's disk is full to the last byte, and free again.

use tidegate_conformance::{Act, Broker};
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::cluster::{Member, acknowledged, is_built_in, order, settled, until};
use tidegate_tests::load::{Load, Running};
use tidegate_tests::machine::{long_faults, not_had};
use tidegate_tests::mount::SmallDisk;
use tidegate_tests::sink::Sink;

use super::bare::Bare;
use super::subscribed;

/// Left free on the disk when it is filled: what a few hundred events take.
const LEFT_BYTES: u64 = 200_000;
/// What a client of a full NATS sends that asks for no acknowledgement: more than what is left.
const BARE_MESSAGES: u64 = 400;

/// RabbitMQ takes no messages where less is free than 50 MB (`disk_free_limit`): free above it, and below it.
const ENOUGH_BYTES: u64 = 60_000_000;
const LITTLE_BYTES: u64 = 30_000_000;

/// A broker on a small disk of its own, and a gateway whose load is delivered. Dropped in this order.
struct Small {
    member: Member,
    broker: Broker,
    disk: SmallDisk,
    sink: Sink,
    load: Load,
}

impl Small {
    /// Starts all of it; none where this machine has no such broker or no such disk.
    async fn start(name: &str, mebibytes: u64) -> Option<Self> {
        if !is_built_in(name).await {
            return None;
        }
        let disk = match SmallDisk::mount(mebibytes) {
            Ok(disk) => disk,
            Err(reason) => {
                not_had(&format!("a full disk under {name}"), &reason);
                return None;
            }
        };
        let broker = Broker::start_in(name, disk.path()).await.filter(Broker::is_ours)?;
        let (sink, home, load) = subscribed(4).await;
        let member = Member::start_in(home, &broker).await;
        settled(&[&member]).await;
        Some(Self { member, broker, disk, sink, load })
    }

    async fn begin(&self) -> Running {
        let running = self.load.begin(self.member.client());
        self.sink.wait_until("fifty deliveries", |deliveries| deliveries.len() >= 50).await;
        running
    }

    /// Waits until the gateway says that nothing is acknowledged any more, and is refused; gives the reason.
    async fn refuses(&self, codes: &[u16]) -> String {
        let (name, client, mut reason) = (self.broker.name(), self.member.client(), String::new());
        let took =
            until("that the gateway is not ready, and says why", async || not_ready(client, &mut reason).await).await;
        println!("{name}: the gateway says so {took:?} after the disk was filled: {reason}");
        let event = Outgoing { id: "full", ..Outgoing::default() };
        let refused = client.publish("load", &event).await.unwrap();
        println!("a publish meanwhile: {refused}");
        refused.expect_problem(codes);
        reason
    }

    /// Waits until everything goes on where there is room, with nothing missing.
    async fn goes_on(&self, running: Running) {
        let (name, client, sink) = (self.broker.name(), self.member.client(), &self.sink);
        let took = until("that it is ready", async || client.get("/readyz").await.unwrap().status == 200).await;
        println!("{name}: it is ready {took:?} after there was room");
        let seen = sink.deliveries().len();
        sink.wait_until("deliveries afterwards", |deliveries| deliveries.len() > seen + 50).await;
        let counts = running.finish().await;
        assert!(counts.put_off > 0, "the fault met no publish, so that it shows nothing: {counts:?}");
        assert_eq!(counts.unanswered, 0, "the gateway goes on");
        let order = order(&sink.wait_for_ids(&acknowledged(&self.load.acknowledged())).await);
        println!("{} acknowledged, {} delivered, {} repeats", counts.acknowledged, order.distinct, order.repeats);
        assert!(order.early.is_empty(), "out of order: {order:?}");
    }
}

/// Fills the disk under a load until the gateway says that nothing is acknowledged any more; frees it and starts the broker
/// anew, which NATS and Kafka want then.
async fn full(name: &str, mebibytes: u64) {
    let Some(small) = Small::start(name, mebibytes).await else { return };
    let bare = Bare::connect(&small.broker).await;
    let running = small.begin().await;

    // What it sends takes room, too, and NATS falls silent stream by stream: there it begins when the gateway's are. The others
    // take nothing more from anybody.
    let at_once = name != "nats";
    let early = if at_once { Some(bare.begin()) } else { None };
    let filler = small.disk.fill_but(LEFT_BYTES);
    small.refuses(&[503, 504, 507]).await;
    let sending = early.unwrap_or_else(|| bare.begin());
    if !at_once {
        sending.wait_for(BARE_MESSAGES).await;
    }
    let control = sending.end().await;

    // Ended before there is room: what it could not write and still holds would be written then, the control's too.
    small.broker.act(Act::Kill, None).await;
    std::fs::remove_file(filler).expect("the disk is ours");
    small.broker.restart(None).await;
    small.goes_on(running).await;
    let (sent, there) = (control.messages, control.held().await);
    println!("a client that asks for no acknowledgement: {sent} told as sent, of which the broker holds {there}");
    assert!(there < sent, "a full disk takes nothing from anybody, so that it shows nothing");
}

/// Leaves less free than the broker wants, under a load, and frees it: everything goes on by itself.
async fn little(name: &str, mebibytes: u64) {
    let Some(small) = Small::start(name, mebibytes).await else { return };
    let running = small.begin().await;
    // The control: with somewhat more left nothing happens.
    let filler = small.disk.fill_but(ENOUGH_BYTES);
    let seen = small.sink.deliveries().len();
    small.sink.wait_until("deliveries with enough room", |deliveries| deliveries.len() > seen + 200).await;
    assert_eq!(small.member.client().get("/readyz").await.unwrap().status, 200, "there is enough room");
    std::fs::remove_file(filler).expect("the disk is ours");

    let filler = small.disk.fill_but(LITTLE_BYTES);
    let reason = small.refuses(&[503, 504]).await;
    assert!(reason.contains("takes no messages") && reason.contains("disk"), "{reason}");
    std::fs::remove_file(filler).expect("the disk is ours");
    small.goes_on(running).await;
}

/// Whether `/readyz` refuses; the reason that it gives.
async fn not_ready(client: &Client, reason: &mut String) -> bool {
    let answer = client.get("/readyz").await.unwrap();
    *reason = String::from_utf8_lossy(&answer.body).into_owned();
    answer.status == 503 && answer.expect_problem(&[503]) == "unavailable"
}

/// NATS falls silent, and stays so until it is started anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_is_full_on_nats() {
    full("nats", 64).await;
}

/// Kafka takes its only log directory offline, and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_is_full_on_kafka() {
    if long_faults("a full disk under kafka") {
        full("kafka", 128).await;
    }
}

/// RabbitMQ takes nothing before its disk is full, and goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_room_is_left_on_rabbitmq() {
    if long_faults("little room under rabbitmq") {
        little("rabbitmq", 192).await;
    }
}

/// Where the disk is filled faster than RabbitMQ looks at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_is_full_on_rabbitmq() {
    if long_faults("a full disk under rabbitmq") {
        full("rabbitmq", 192).await;
    }
}
