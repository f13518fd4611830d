//! Attacks by frames of HTTP/2, each on several connections at once beside a good client.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_tests::client::Outgoing;
use tidegate_tests::frames::{
    CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, integer, request, text,
};
use tidegate_tests::gateway::Gateway;
use tidegate_tests::home::Home;
use tokio::task::JoinSet;

use super::{Good, memory_mebibytes, start};

/// Connections that attack at once.
const CONNECTIONS: usize = 4;
/// What all of them together may make the gateway take.
const GROWTH_MEBIBYTES: u64 = 64;
/// The longest that a flood goes on; the gateway ends it long before.
const FLOOD_FRAMES: usize = 200_000;
const PATIENCE: Duration = Duration::from_secs(30);

fn authority(address: SocketAddr) -> String {
    address.to_string()
}

fn get(address: SocketAddr, stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", path, &authority(address), &[]))
}

/// Writes what `next` makes until the gateway has enough of it; gives whether it had.
async fn flood(connection: &mut Connection, mut next: impl FnMut(usize) -> Vec<u8>) -> bool {
    const TOGETHER: usize = 50;
    for first in (0..FLOOD_FRAMES).step_by(TOGETHER) {
        let bytes: Vec<u8> = (first..first + TOGETHER).flat_map(&mut next).collect();
        if !connection.write(&bytes).await || connection.seen().goaways > 0 || connection.seen().ended {
            return true;
        }
    }
    connection.wait(PATIENCE, |seen| seen.goaways > 0 || seen.ended).await
}

/// The odd numbers that a client gives its streams.
fn stream(number: usize) -> u32 {
    u32::try_from(2 * number + 1).expect("few streams")
}

async fn rapid_reset(address: SocketAddr) -> bool {
    let mut connection = Connection::open(address, &[]).await;
    flood(&mut connection, |number| {
        let mut bytes = get(address, stream(number), "/livez");
        bytes.extend(frame(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes()));
        bytes
    })
    .await
}

async fn continuation_flood(address: SocketAddr) -> bool {
    let mut connection = Connection::open(address, &[]).await;
    let begin = frame(HEADERS, END_STREAM, 1, &request("GET", "/livez", &authority(address), &[]));
    let more = [vec![0], text("x"), text(&"y".repeat(1000))].concat();
    connection.write(&begin).await && flood(&mut connection, |_| frame(CONTINUATION, 0, 1, &more)).await
}

async fn empty_continuations(address: SocketAddr) -> bool {
    let mut connection = Connection::open(address, &[]).await;
    let begin = frame(HEADERS, END_STREAM, 1, &request("GET", "/livez", &authority(address), &[]));
    connection.write(&begin).await && flood(&mut connection, |_| frame(CONTINUATION, 0, 1, &[])).await
}

async fn empty_data_flood(address: SocketAddr) -> bool {
    let mut connection = Connection::open(address, &[]).await;
    let fields = [("content-type", "application/json")];
    let begin = frame(HEADERS, END_HEADERS, 1, &request("POST", "/topics/bad", &authority(address), &fields));
    connection.write(&begin).await && flood(&mut connection, |_| frame(DATA, 0, 1, &[])).await
}

/// A field of 4,000 bytes is kept in the table of the connection, and named by one byte thousands of times.
async fn header_bomb(address: SocketAddr) -> bool {
    let mut connection = Connection::open(address, &[]).await;
    let seed = [vec![0x40], text("x"), text(&"y".repeat(3_900))].concat();
    let named = integer(0x80, 7, 62).repeat(12_000);
    flood(&mut connection, |number| {
        let mut block = request("GET", "/livez", &authority(address), &[]);
        if number == 0 {
            block.extend_from_slice(&seed);
        }
        block.extend_from_slice(&named[..named.len().min(16_000 - block.len())]);
        frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &block)
    })
    .await
}

async fn settings_flood(address: SocketAddr) -> bool {
    let mut connection = Connection::open(address, &[]).await;
    for _ in 0..2_000 {
        let bytes = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]).repeat(10);
        if !connection.write(&bytes).await {
            break;
        }
    }
    // Each is answered and forgotten, which is no harm; the connection may go on.
    true
}

type Attack = (&'static str, fn(SocketAddr) -> std::pin::Pin<Box<dyn Future<Output = bool> + Send>>);

fn attacks() -> Vec<Attack> {
    vec![
        ("rapid reset", |address| Box::pin(rapid_reset(address))),
        ("CONTINUATION flood", |address| Box::pin(continuation_flood(address))),
        ("empty CONTINUATION flood", |address| Box::pin(empty_continuations(address))),
        ("empty DATA flood", |address| Box::pin(empty_data_flood(address))),
        ("header bomb", |address| Box::pin(header_bomb(address))),
        ("SETTINGS flood", |address| Box::pin(settings_flood(address))),
    ]
}

async fn fill(gateway: &Gateway) {
    let data = format!("\"{}\"", "x".repeat(100 * 1024));
    for id in 0..20 {
        let id = id.to_string();
        let event = Outgoing { id: &id, data: &data, ..Outgoing::default() };
        gateway.client().publish("large", &event).await.expect("the gateway answers").expect(202);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_their_connection_and_nothing_else() {
    let home = Home::new();
    let gateway = start(&home, "{memory: 256MiB}").await;
    fill(&gateway).await;
    let good = Good::begin(&gateway);
    for (name, attack) in attacks() {
        let before = memory_mebibytes(&gateway, "VmRSS");
        let mut attackers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            attackers.spawn(attack(gateway.http()));
        }
        while let Some(ended) = attackers.join_next().await {
            assert!(ended.expect("an attacker does not fail"), "{name}: the gateway takes all of it");
        }
        let peak = memory_mebibytes(&gateway, "VmHWM");
        println!("{name}: {before} MiB before, the peak until now {peak} MiB");
        assert!(peak < before + GROWTH_MEBIBYTES, "{name}: from {before} to {peak} MiB");
    }
    good.end(&gateway).await;
    assert!(gateway.terminate().await.success());
}

/// Opens as many streams as there may be, takes nothing of their answers, and keeps the connection alive.
async fn stall(address: SocketAddr, window: u32) -> Connection {
    let mut connection = Connection::open(address, &[(INITIAL_WINDOW_SIZE, window)]).await;
    for number in 0..100 {
        let bytes = get(address, stream(number), "/topics/large/events?limit=20");
        assert!(connection.write(&bytes).await, "the gateway closed before it had a reason to");
    }
    connection
}

async fn stay_alive(connection: &mut Connection, wait: Duration, enough: impl Fn(&Connection) -> bool) -> bool {
    let until = async {
        while !enough(connection) {
            let ping = [frame(PING, 0, 0, &[1; 8]), frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())].concat();
            if !connection.write(&ping).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(wait, until).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_left_unread_are_reset_and_memory_stays_bounded() {
    let home = Home::new();
    let gateway = start(&home, "{memory: 128MiB, writeTimeout: 2s, idleTimeout: 3s}").await;
    fill(&gateway).await;
    let good = Good::begin(&gateway);
    for window in [0, 1] {
        let mut attackers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let address = gateway.http();
            attackers.spawn(async move {
                let mut connection = stall(address, window).await;
                // With a window of a byte the last piece of an answer may lie in a buffer that only the connection's end
                // empties, and that comes when nothing else is out.
                let reset = |connection: &Connection| connection.seen().resets >= 100 || connection.seen().ended;
                let ended = stay_alive(&mut connection, PATIENCE, reset).await;
                (ended, connection.seen())
            });
        }
        while let Some(ended) = attackers.join_next().await {
            let (ended, seen) = ended.expect("an attacker does not fail");
            assert!(ended, "streams with a window of {window} are left open: {seen:?}");
        }
        println!("window {window}: the peak until now {} MiB", memory_mebibytes(&gateway, "VmHWM"));
    }
    good.end(&gateway).await;
    let peak = memory_mebibytes(&gateway, "VmHWM");
    assert!(peak < 256, "{peak} MiB with a budget of 128");
    assert!(gateway.terminate().await.success());
}

/// The control: without the deadline the same streams stay open, with what is held for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_deadline_unread_streams_stay() {
    let home = Home::new();
    let gateway = start(&home, "{memory: 8GiB, writeTimeout: 1h}").await;
    fill(&gateway).await;
    let mut connection = stall(gateway.http(), 0).await;
    let reset = |connection: &Connection| connection.seen().resets > 0 || connection.seen().ended;
    let ended = stay_alive(&mut connection, Duration::from_secs(6), reset).await;
    assert!(!ended, "something else than the deadline ends them: {:?}", connection.seen());
    assert!(connection.seen().answers == 100, "{:?}", connection.seen());
    gateway.kill().await;
}
