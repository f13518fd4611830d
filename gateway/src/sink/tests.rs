//! Against small servers on real sockets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Only against hanging.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

/// What a test server does with each connection after it has read a request of one small body.
#[derive(Clone, Copy, Debug)]
enum Conduct {
    /// Writes this, again for each request on the connection.
    Answers(&'static str),
    /// Reads, and never answers.
    Silent,
    /// Writes the head of an answer and then one byte after the other.
    Drips,
    /// Writes an answer that never ends, as fast as it is read.
    Endless,
    /// Reads the request and resets the connection.
    Resets,
    /// Promises more than it sends.
    BreaksOff,
}

struct Sink {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<parking_lot::Mutex<Vec<String>>>,
    environment: Environment,
}

impl Sink {
    async fn new(conduct: Conduct) -> Self {
        let environment = Environment::system();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let sink = Self { address, connections, requests, environment: environment.clone() };
        let (connections, requests) = (Arc::clone(&sink.connections), Arc::clone(&sink.requests));
        environment.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                environment.spawn(behave(stream, conduct, Arc::clone(&requests)));
            }
        });
        sink
    }

    async fn call(&self, policy: AddressPolicy, timeout: Duration) -> Result<Answer, Failure> {
        let http = Http::new(Options::default(), &self.environment);
        deliver(&http, policy, &format!("http://{}/hook", self.address), timeout).await
    }
}

async fn deliver(http: &Http, policy: AddressPolicy, target: &str, timeout: Duration) -> Result<Answer, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert("ce-id", "1".parse().unwrap());
    let target: Uri = target.parse().unwrap();
    let route = Route { uri: &target, policy, trust: None };
    let call = http.deliver(route, headers, Bytes::from_static(b"hello"), timeout);
    tokio::time::timeout(PATIENCE, call).await.expect("the attempt outlasts its timeout")
}

async fn behave(mut stream: TcpStream, conduct: Conduct, requests: Arc<parking_lot::Mutex<Vec<String>>>) {
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\nhello") {
            match stream.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => return,
            }
        }
        requests.lock().push(String::from_utf8(request).unwrap());
        match conduct {
            Conduct::Answers(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
            Conduct::Silent => std::future::pending().await,
            Conduct::Drips => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                return;
            }
            Conduct::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
                return;
            }
            Conduct::Resets => {
                // An answer would be read; unread bytes at the close make it a reset.
                stream.set_zero_linger().unwrap();
                return;
            }
            Conduct::BreaksOff => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
                return;
            }
        }
    }
}

#[tokio::test]
async fn whatever_has_a_status_is_an_answer() {
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "ok"),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ("HTTP/1.1 500 Oh\r\ncontent-length: 3\r\n\r\nbad", 500, "bad"),
        ("HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", 429, ""),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok"),
        ("HTTP/1.1 307 Away\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n", 307, ""),
    ];
    for (text, status, body) in cases {
        let sink = Sink::new(Conduct::Answers(text)).await;
        let answer = sink.call(AddressPolicy::Any, PATIENCE).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (status, body.as_bytes()), "{text:?}");
        assert!(!answer.truncated);
        assert_eq!(answer.headers.get("retry-after").is_some(), status == 429);
        // A redirect is not followed: one request, whatever the answer.
        let requests = sink.requests.lock();
        assert_eq!(requests.len(), 1, "{text:?}");
        assert!(requests[0].starts_with("POST /hook HTTP/1.1\r\n") && requests[0].contains("ce-id: 1\r\n"));
    }
}

#[tokio::test]
async fn what_brings_no_answer_says_whether_the_sink_can_have_seen_it() {
    for conduct in [Conduct::Silent, Conduct::Drips, Conduct::Resets, Conduct::BreaksOff] {
        let sink = Sink::new(conduct).await;
        let failure = sink.call(AddressPolicy::Any, SHORT).await.unwrap_err();
        assert!(matches!(failure, Failure::NoAnswer(_)), "{conduct:?}: {failure}");
        assert_eq!(sink.requests.lock().len(), 1, "{conduct:?}");
    }
    let garbage = Sink::new(Conduct::Answers("220 mail.example ESMTP\r\n")).await;
    let failure = garbage.call(AddressPolicy::Any, PATIENCE).await.unwrap_err();
    assert!(matches!(failure, Failure::NoAnswer(_)), "{failure}");

    let environment = Environment::system();
    let http = Http::new(Options::default(), &environment);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let plain = Sink::new(Conduct::Answers("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let no_tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let no_tls_address = no_tls.local_addr().unwrap();
    environment.spawn(async move {
        while let Ok((mut stream, _)) = no_tls.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    // A listener whose queue nobody empties is as good as one that drops packets: the handshake hangs.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let targets = [
        (format!("http://{free}/"), "refused"),
        ("http://no-such-host.invalid/".to_owned(), "no-such-host.invalid"),
        (format!("https://{no_tls_address}/"), ""),
        (format!("https://{}/", silent.local_addr().unwrap()), "no connection within"),
    ];
    for (target, words) in targets {
        let failure = deliver(&http, AddressPolicy::Any, &target, Duration::from_secs(3)).await.unwrap_err();
        assert!(matches!(failure, Failure::Unreachable(_)), "{target}: {failure}");
        assert!(failure.to_string().contains(words), "{target}: {failure}");
    }
    assert_eq!(plain.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn no_more_than_the_cap_is_read_of_an_answer() {
    let sink = Sink::new(Conduct::Endless).await;
    let answer = sink.call(AddressPolicy::Any, PATIENCE).await.unwrap();
    assert!(answer.truncated);
    assert_eq!(answer.body.len(), limits::SINK_RESPONSE_BYTES);
}

#[tokio::test]
async fn a_connection_serves_many_attempts_and_ends_with_the_client() {
    let sink = Sink::new(Conduct::Answers("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let environment = Environment::system();
    let http = Http::new(Options::default(), &environment);
    let target = format!("http://{}/hook", sink.address);
    for _ in 0..20 {
        assert_eq!(deliver(&http, AddressPolicy::Any, &target, PATIENCE).await.unwrap().status, 200);
    }
    assert_eq!(sink.connections.load(Ordering::SeqCst), 1);
    drop(http);
    assert!(environment.stop(PATIENCE).await, "a connection outlives its client");
}

#[tokio::test]
async fn private_addresses_are_refused_where_only_public_ones_may_be() {
    let sink = Sink::new(Conduct::Answers("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let port = sink.address.port();
    let http = Http::new(Options::default(), &sink.environment);
    let call = |policy, host: &str| {
        let (http, target) = (http.clone(), format!("http://{host}:{port}/hook"));
        async move { deliver(&http, policy, &target, PATIENCE).await }
    };
    // A connection that an operator's target opened, and that lies in a pool now.
    assert!(call(AddressPolicy::Any, "127.0.0.1").await.is_ok());
    assert!(call(AddressPolicy::Any, "localhost").await.is_ok());
    let before = sink.connections.load(Ordering::SeqCst);
    let hosts = [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ];
    for host in hosts {
        let failure = call(AddressPolicy::PublicOnly, host).await.unwrap_err();
        assert!(matches!(&failure, Failure::Forbidden(reason) if reason.contains("not public")), "{host}: {failure}");
    }
    assert_eq!(sink.connections.load(Ordering::SeqCst), before, "a refused target was connected to");
}

#[tokio::test]
async fn targets_that_cannot_be_called_are_named() {
    let http = Http::new(Options::default(), &Environment::system());
    for target in ["/hook", "ftp://localhost/", "http://user:secret@localhost/"] {
        let failure = deliver(&http, AddressPolicy::Any, target, PATIENCE).await.unwrap_err();
        assert!(matches!(failure, Failure::Invalid(_)), "{target}: {failure}");
        assert!(!failure.to_string().contains("secret"), "{failure}");
    }
}
