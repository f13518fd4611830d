//! What is refused when the gateway has as much in hand as it may, and how clients that do not read are let go.

use tidegate_backbone::budget::{Account, Budget};

use super::*;

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn with_memory(options: Options, memory: &Budget) -> Gateway {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let environment = Environment::system().with_memory(memory.clone());
    gateway_in(options, listener.address, listener.socket, environment)
}

fn post(length: usize) -> String {
    format!("POST /count HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n")
}

#[tokio::test]
async fn a_body_without_memory_is_refused_unread_and_the_connection_goes_on() {
    let memory = Budget::new(16 * 1024 * 1024);
    let gateway = with_memory(Options::default(), &memory);
    // What others hold, all but 2 KiB of the share of bodies.
    let others = memory.take(Account::Bodies, memory.share_bytes(Account::Bodies) - 2 * 1024);
    let mut stream = gateway.connect().await;
    stream.write_all(format!("{}{}", post(1_000), "x".repeat(1_000)).as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.ends_with("1000"));
    // Refused before any of the body is sent.
    let text = gateway.converse(post(12 * 1024).as_bytes()).await;
    assert_eq!(statuses(&text), ["503"], "{text}");
    assert!(text.contains("overloaded") && text.contains("retry-after: 1\r\n"), "{text}");
    // Whoever sent a small one along keeps the connection.
    stream.write_all(format!("{}{}", post(3_000), "x".repeat(3_000)).as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 503"));
    stream.write_all(LIVEZ.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.ends_with("alive"));
    // Without a declared length it is found out while the body is read.
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let head = format!("POST /count HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{chunk}");
    let text = gateway.converse(head.as_bytes()).await;
    assert_eq!(statuses(&text), ["503"], "{text}");
    drop(others);
    stream.write_all(format!("{}{}", post(3_000), "x".repeat(3_000)).as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.ends_with("3000"));
    drop(stream);
    eventually("nothing is held", || memory.used_bytes() == 0).await;
}

#[tokio::test]
async fn a_large_answer_needs_memory_and_gives_it_back() {
    let memory = Budget::new(1024 * 1024 * 1024);
    let gateway = with_memory(Options::default(), &memory);
    let ask = format!("GET /large HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n");
    let mut first = gateway.connect().await;
    first.write_all(ask.as_bytes()).await.unwrap();
    let held = || memory.standing(Account::Answers).used_bytes;
    eventually("the answer is held", || held() >= 64 * 1024 * 1024).await;
    let mut second = gateway.connect().await;
    second.write_all(ask.as_bytes()).await.unwrap();
    eventually("both are held", || held() >= 128 * 1024 * 1024).await;
    let text = gateway.converse(ask.as_bytes()).await;
    assert_eq!(statuses(&text), ["503"], "{text}");
    assert!(text.contains("retry-after: 1\r\n"), "{text}");
    assert!(rest(&mut first).await.len() > 64 * 1024 * 1024 && rest(&mut second).await.len() > 64 * 1024 * 1024);
    drop((first, second));
    eventually("nothing is held", || memory.used_bytes() == 0).await;
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_told_so_and_not_reset() {
    let gateway = gateway(options(|limits| limits.body_bytes = Some(64 * 1024)));
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x1_0000));
    for chunks in [2, 20, 60] {
        let mut request = format!("POST /count HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
        request.push_str(&chunk.repeat(chunks));
        request.push_str("0\r\n\r\n");
        // All is sent before anything is read, as simple clients do.
        let mut stream = gateway.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("it stays open");
        let text = String::from_utf8_lossy(&bytes);
        assert!(read.is_ok(), "{chunks} chunks: {read:?} behind {text}");
        assert_eq!(statuses(&text), ["413"], "{chunks} chunks: {text}");
    }
}

#[tokio::test]
async fn requests_of_one_client_are_bounded() {
    let gateway = gateway(options(|limits| limits.requests_in_flight_per_client = 1));
    let mut waiting = gateway.connect().await;
    waiting.write_all(format!("GET /gate HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    eventually("the request arrived", || gateway.arrived.load(Ordering::SeqCst) == 1).await;
    let mut stream = gateway.connect().await;
    stream.write_all(LIVEZ.as_bytes()).await.unwrap();
    let text = answer(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 429") && text.contains("too-many-requests"), "{text}");
    assert!(text.contains("retry-after: 1\r\n"), "{text}");
    gateway.gate.add_permits(1);
    assert!(answer(&mut waiting).await.ends_with("passed"));
    stream.write_all(LIVEZ.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.ends_with("alive"));

    let gateway = super::gateway(options(|limits| limits.requests_per_second_per_client = Some(3)));
    let mut stream = gateway.connect().await;
    let mut passed = 0;
    for _ in 0..20 {
        stream.write_all(LIVEZ.as_bytes()).await.unwrap();
        let text = answer(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 200") || text.starts_with("HTTP/1.1 429"), "{text}");
        passed += usize::from(text.starts_with("HTTP/1.1 200"));
    }
    assert!((3..20).contains(&passed), "{passed} of 20");
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_cut() {
    let gateway = gateway(options(|limits| {
        limits.write_timeout = SHORT * 3;
        limits.answer_bytes_per_second = 1024 * 1024 * 1024;
    }));
    let mut stream = gateway.connect().await;
    stream.write_all(format!("GET /large HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    // It reads again and again, so that the connection is never blocked for the whole time-out.
    let mut buffer = vec![0; 256 * 1024];
    let reading = async {
        while gateway.metrics.connections_refused("unread") == 0 {
            let _ = stream.read(&mut buffer).await;
            tokio::time::sleep(SHORT / 4).await;
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("it goes on for ever");
}

#[tokio::test]
async fn an_http2_stream_that_is_left_unread_is_reset_alone() {
    let gateway = gateway(options(|limits| limits.write_timeout = SHORT * 5));
    let io = TokioIo::new(gateway.connect().await);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1024);
    let (mut client, connection) = builder.handshake(io).await.unwrap();
    Environment::system().spawn(connection);
    let get = |path: &str| http::Request::get(format!("http://localhost{path}")).body(Empty::<Bytes>::new()).unwrap();
    let stalled = client.send_request(get("/large")).await.unwrap();
    assert_eq!(stalled.status(), 200);
    eventually("the stream was reset", || gateway.metrics.connections_refused("unread-stream") == 1).await;
    assert!(stalled.into_body().collect().await.is_err());
    // The connection goes on, and so does a stream that waits for the gateway.
    let waiting = client.send_request(get("/gate"));
    let response = client.send_request(get("/livez")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "alive");
    gateway.gate.add_permits(1);
    assert_eq!(waiting.await.unwrap().into_body().collect().await.unwrap().to_bytes(), "passed");
    assert_eq!(gateway.metrics.connections_refused("unread-stream"), 1);
}
