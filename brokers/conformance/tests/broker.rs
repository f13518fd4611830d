//! Real brokers start, die, stand still and come back, and are reached through proxies.

use std::time::Duration;

use tidegate_conformance::{Act, Broker, Linked};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Against hanging alone.
const HANG: Duration = Duration::from_secs(60);

/// A connection to NATS that has read the greeting.
async fn nats(address: &str) -> std::io::Result<BufReader<TcpStream>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let mut greeting = String::new();
    tokio::time::timeout(HANG, stream.read_line(&mut greeting)).await.expect("a greeting before long")?;
    if !greeting.starts_with("INFO ") {
        return Err(std::io::Error::other(format!("it greets with {greeting:?}")));
    }
    Ok(stream)
}

/// Asks for an answer and waits for it; none where it does not come in time.
async fn ping(stream: &mut BufReader<TcpStream>, patience: Duration) -> Option<()> {
    stream.get_mut().write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await.unwrap();
    tokio::time::timeout(patience, pong(stream)).await.ok()
}

/// The server may ask for a sign of life in between.
async fn pong(stream: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while line != "PONG\r\n" {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "the connection has ended");
    }
}

#[tokio::test]
async fn a_broker_dies_stands_still_and_comes_back() {
    let Some(broker) = Broker::start("nats").await else { return };
    if !broker.is_ours() {
        return;
    }
    let address = broker.addresses().remove(0);
    let mut stream = nats(&address).await.unwrap();
    ping(&mut stream, HANG).await.expect("it answers");

    broker.act(Act::Pause, None).await;
    assert!(ping(&mut stream, Duration::from_millis(100)).await.is_none(), "it stands still");
    broker.act(Act::Resume, None).await;
    tokio::time::timeout(HANG, pong(&mut stream)).await.expect("it goes on");

    broker.act(Act::Kill, None).await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(HANG, stream.read_to_end(&mut rest)).await.expect("the connection ends");
    nats(&address).await.expect_err("nobody listens");
    broker.act(Act::Restart, None).await;
    nats(&address).await.expect("it listens on the same port");
    let folder = broker.folder().unwrap();
    drop(broker);
    nats(&address).await.expect_err("it is gone");
    assert!(!folder.exists(), "its data is gone");
}

#[tokio::test]
async fn a_broker_is_reached_through_its_proxies_and_tells_clients_of_them() {
    let Some(linked) = Linked::start("nats3").await else { return };
    let ports: Vec<String> =
        linked.proxies().iter().map(|proxy| format!("\"127.0.0.1:{}\"", proxy.address().port())).collect();
    for proxy in linked.proxies() {
        let mut stream = BufReader::new(TcpStream::connect(proxy.address()).await.unwrap());
        let mut greeting = String::new();
        stream.read_line(&mut greeting).await.unwrap();
        for port in &ports {
            assert!(greeting.contains(port), "{port} is not told of in {greeting}");
        }
        proxy.refuse();
        let read = stream.read_line(&mut greeting).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    assert!(linked.url().starts_with("nats://127.0.0.1:"), "{}", linked.url());
}
