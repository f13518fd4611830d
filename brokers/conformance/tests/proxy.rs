//! The fault proxy brings about what it says, and nothing once it is healed.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate_conformance::{Direction, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Against hanging alone.
const HANG: Duration = Duration::from_secs(30);
/// How long nothing must come.
const SILENCE: Duration = Duration::from_millis(100);

/// Sends back what it gets, until the peer has sent all; dropped, it ends with its connections.
struct Echo {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

async fn echo() -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
                let _ = writes.shutdown().await;
            });
        }
    });
    Echo { address, _tasks: tasks }
}

async fn proxied() -> (Echo, Proxy) {
    let (echo, proxy) = (echo().await, Proxy::start().await);
    proxy.forward_to(echo.address);
    (echo, proxy)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

/// Sends a text and reads as much back.
async fn round(stream: &mut TcpStream, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut answer = vec![0; text.len()];
    tokio::time::timeout(HANG, stream.read_exact(&mut answer)).await.expect("an answer before long")?;
    Ok(String::from_utf8(answer).unwrap())
}

async fn silent(stream: &mut TcpStream) {
    let read = tokio::time::timeout(SILENCE, stream.read(&mut [0; 64])).await;
    assert!(read.is_err(), "something came: {read:?}");
}

/// The next thing that comes is a reset.
async fn reset(stream: &mut TcpStream) {
    let read = tokio::time::timeout(HANG, stream.read(&mut [0; 64])).await.expect("an end before long");
    assert_eq!(read.expect_err("not an end that was agreed upon").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn it_forwards_everything_and_each_end() {
    let (_echo, proxy) = proxied().await;
    let mut stream = connect(&proxy).await;
    let text = "x".repeat(1_000_000);
    let (mut reads, mut writes) = stream.split();
    let send = async {
        writes.write_all(text.as_bytes()).await.unwrap();
        writes.shutdown().await.unwrap();
    };
    let mut answer = String::new();
    let (read, ()) = tokio::join!(reads.read_to_string(&mut answer), send);
    assert_eq!((read.unwrap(), answer == text), (1_000_000, true));
    assert_eq!((proxy.connections(), proxy.bytes(Direction::ToBroker)), (1, 1_000_000));
    assert_eq!(proxy.bytes(Direction::FromBroker), 1_000_000);
}

#[tokio::test]
async fn a_cut_resets_what_is_open_and_nothing_later() {
    let (_echo, proxy) = proxied().await;
    let (mut one, mut two) = (connect(&proxy).await, connect(&proxy).await);
    assert_eq!(round(&mut one, "a").await.unwrap(), "a");
    assert_eq!(round(&mut two, "b").await.unwrap(), "b");
    proxy.cut();
    reset(&mut one).await;
    reset(&mut two).await;
    assert_eq!(round(&mut connect(&proxy).await, "c").await.unwrap(), "c");
}

#[tokio::test]
async fn refused_connections_end_at_once_until_it_is_healed() {
    let (_echo, proxy) = proxied().await;
    let mut open = connect(&proxy).await;
    assert_eq!(round(&mut open, "a").await.unwrap(), "a");
    proxy.refuse();
    reset(&mut open).await;
    for _ in 0..3 {
        reset(&mut connect(&proxy).await).await;
    }
    proxy.heal();
    assert_eq!(round(&mut connect(&proxy).await, "b").await.unwrap(), "b");
}

#[tokio::test]
async fn half_open_connections_are_silent_and_go_on_where_they_were() {
    let (_echo, proxy) = proxied().await;
    let mut open = connect(&proxy).await;
    assert_eq!(round(&mut open, "a").await.unwrap(), "a");
    proxy.half_open();
    open.write_all(b"b").await.unwrap();
    let mut fresh = connect(&proxy).await;
    fresh.write_all(b"c").await.unwrap();
    silent(&mut open).await;
    silent(&mut fresh).await;
    proxy.heal();
    for (stream, expected) in [(&mut open, b'b'), (&mut fresh, b'c')] {
        assert_eq!(tokio::time::timeout(HANG, stream.read_u8()).await.unwrap().unwrap(), expected);
    }
}

/// A side that ends behind a silent network is not heard of on the other side.
#[tokio::test]
async fn an_end_is_not_heard_through_silence() {
    let (echo, proxy) = proxied().await;
    let mut open = connect(&proxy).await;
    assert_eq!(round(&mut open, "a").await.unwrap(), "a");
    proxy.half_open();
    drop(echo);
    silent(&mut open).await;
    proxy.heal();
    let read = tokio::time::timeout(HANG, open.read(&mut [0; 1])).await.expect("the end comes through");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn one_direction_can_be_held_or_lost() {
    let (_echo, proxy) = proxied().await;
    let mut stream = connect(&proxy).await;
    assert_eq!(round(&mut stream, "a").await.unwrap(), "a");
    proxy.hold(Direction::FromBroker);
    stream.write_all(b"b").await.unwrap();
    silent(&mut stream).await;
    assert_eq!(proxy.bytes(Direction::ToBroker), 2, "the request came through");
    proxy.heal();
    assert_eq!(tokio::time::timeout(HANG, stream.read_u8()).await.unwrap().unwrap(), b'b');

    proxy.black_hole(Direction::FromBroker);
    stream.write_all(b"c").await.unwrap();
    silent(&mut stream).await;
    assert_eq!(proxy.bytes(Direction::ToBroker), 3, "the request came through");
    proxy.heal();
    reset(&mut stream).await;
    assert_eq!(round(&mut connect(&proxy).await, "d").await.unwrap(), "d");
}

#[tokio::test]
async fn delay_makes_everything_later_and_keeps_it_in_order() {
    let (_echo, proxy) = proxied().await;
    let mut stream = connect(&proxy).await;
    proxy.delay(SILENCE);
    let began = tokio::time::Instant::now();
    assert_eq!(round(&mut stream, "abc").await.unwrap(), "abc");
    assert!(began.elapsed() >= SILENCE * 2, "once for each direction, not {:?}", began.elapsed());
}

#[tokio::test]
async fn a_reset_comes_after_exactly_so_many_bytes() {
    let (_echo, proxy) = proxied().await;
    let mut stream = connect(&proxy).await;
    assert_eq!(round(&mut stream, "abc").await.unwrap(), "abc");
    proxy.reset_after(Direction::ToBroker, 5);
    stream.write_all(b"0123456789").await.unwrap();
    let mut seen = Vec::new();
    let end = loop {
        match tokio::time::timeout(HANG, stream.read_buf(&mut seen)).await.expect("an end before long") {
            Ok(0) => panic!("an end that was agreed upon"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    assert!(b"01234".starts_with(&seen), "{seen:?}");
    assert_eq!(proxy.bytes(Direction::ToBroker), 3 + 5);
    assert_eq!(round(&mut connect(&proxy).await, "d").await.unwrap(), "d");
}
