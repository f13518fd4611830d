//! Hundreds of clients that are slow on purpose, beside a good one.

use std::time::{Duration, Instant};

use tidegate_tests::PATIENCE;
use tidegate_tests::client::Outgoing;
use tidegate_tests::gateway::Gateway;
use tidegate_tests::home::Home;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use super::{Good, comes_to, figure, memory_mebibytes, start};

const ATTACKERS: usize = 300;
/// The deadlines of the gateway under attack.
const TIMEOUT: Duration = Duration::from_secs(2);
const SHORT: &str = "{headerTimeout: 2s, bodyTimeout: 2s, writeTimeout: 2s, idleTimeout: 5s, memory: 256MiB}";
/// As good as none.
const LONG: &str = "{headerTimeout: 1h, bodyTimeout: 1h, writeTimeout: 1h, idleTimeout: 1h, memory: 8GiB}";

/// What an attacker does.
#[derive(Clone, Copy)]
struct Attack {
    name: &'static str,
    /// Sent at once.
    opening: &'static str,
    /// Sent again and again, a tenth of a second apart.
    trickle: &'static str,
}

const POST: &str = "POST /topics/slow HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

fn attacks() -> Vec<Attack> {
    let post = |rest: &str| -> &'static str { Box::leak(format!("{POST}{rest}").into_boxed_str()) };
    let page = "GET /topics/large/events?limit=10 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    vec![
        Attack { name: "silence", opening: "", trickle: "" },
        Attack { name: "slow header", opening: "GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ", trickle: "x" },
        Attack { name: "slow body", opening: post("content-length: 100000\r\n\r\n"), trickle: "x" },
        Attack { name: "slow chunks", opening: post("transfer-encoding: chunked\r\n\r\n"), trickle: "1\r\nx\r\n" },
        Attack { name: "unread pages", opening: Box::leak(page.repeat(4).into_boxed_str()), trickle: "" },
        Attack {
            name: "unread stream",
            opening: "GET /topics/large/events?from=earliest HTTP/1.1\r\nhost: localhost\r\naccept: \
                      text/event-stream\r\n\r\n",
            trickle: "",
        },
    ]
}

/// Runs until the gateway closes; nothing is ever read.
async fn attack(gateway: std::net::SocketAddr, attack: Attack) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a TCP option");
    let Ok(mut stream) = socket.connect(gateway).await else { return };
    let _ = stream.write_all(attack.opening.as_bytes()).await;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if !attack.trickle.is_empty() && stream.write_all(attack.trickle.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn fill(gateway: &Gateway) {
    let data = format!("\"{}\"", "x".repeat(100 * 1024));
    for id in 0..60 {
        let id = id.to_string();
        let event = Outgoing { id: &id, data: &data, ..Outgoing::default() };
        gateway.client().publish("large", &event).await.expect("the gateway answers").expect(202);
    }
}

async fn begin(gateway: &Gateway, kind: Attack) -> JoinSet<()> {
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        attackers.spawn(attack(gateway.http(), kind));
    }
    let there = |open: f64| open >= ATTACKERS as f64 / 2.0;
    assert!(comes_to(gateway, "tidegate_connections", PATIENCE, there).await, "{}: nobody attacks", kind.name);
    attackers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_let_go_and_a_good_one_does_not_notice() {
    let home = Home::new();
    let gateway = start(&home, SHORT).await;
    fill(&gateway).await;
    let good = Good::begin(&gateway);
    for kind in attacks() {
        let began = Instant::now();
        let mut attackers = begin(&gateway, kind).await;
        // Those of the good client, of this test, and one that may just be closing.
        let gone = comes_to(&gateway, "tidegate_connections", PATIENCE * 2, |open| open <= 3.0).await;
        println!("{}: all gone after {:.1} s", kind.name, began.elapsed().as_secs_f64());
        // How long it takes depends on how busy the machine is; that it is the deadline that ends them, the control shows.
        assert!(gone, "{}: {} connections are still open", kind.name, figure(&gateway, "tidegate_connections").await);
        attackers.shutdown().await;
    }
    good.end(&gateway).await;
    let peak = memory_mebibytes(&gateway, "VmHWM");
    println!("the most memory at once: {peak} MiB");
    assert!(peak < 400, "{peak} MiB with a budget of 256");
    assert!(gateway.terminate().await.success());
}

/// The control: without deadlines the same attackers stay, so it is the deadlines that let them go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_deadlines_they_stay() {
    let home = Home::new();
    let gateway = start(&home, LONG).await;
    fill(&gateway).await;
    for kind in attacks() {
        let mut attackers = begin(&gateway, kind).await;
        tokio::time::sleep(TIMEOUT * 2).await;
        let open = figure(&gateway, "tidegate_connections").await;
        // Pages for which there was no memory were refused, and their connections rest.
        assert!(open >= ATTACKERS as f64 * 0.9, "{}: only {open} are left without a deadline", kind.name);
        attackers.shutdown().await;
        assert!(comes_to(&gateway, "tidegate_connections", PATIENCE, |open| open <= 3.0).await, "{}", kind.name);
    }
    gateway.kill().await;
}
