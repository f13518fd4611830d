//! Real sockets. Limits are short where a test waits for one to pass, and nothing is asserted of how long it took.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use crate::edge::guard::{self, Guard};
use crate::edge::problem::{Code, Problem};

use super::*;

mod overload;

/// Only against hanging.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

struct Gateway {
    server: Server,
    environment: Environment,
    metrics: Arc<Metrics>,
    /// Requests to `/gate` that have arrived, and what lets them through.
    arrived: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

fn options(change: impl FnOnce(&mut Limits)) -> Options {
    let mut options = Options::default();
    change(&mut options.limits);
    options
}

fn router(arrived: Arc<AtomicUsize>, gate: Arc<Semaphore>) -> Router {
    let wait = move || async move {
        arrived.fetch_add(1, Ordering::SeqCst);
        let _passed = gate.acquire().await.unwrap();
        "passed"
    };
    let count = |body: Body| async move {
        match read_body(body).await {
            Ok(bytes) => bytes.len().to_string().into_response(),
            Err(problem) => problem.into_response(),
        }
    };
    Router::new()
        .route("/livez", get(|| async { "alive" }))
        .route("/large", get(|| async { vec![0_u8; 64 * 1024 * 1024] }))
        .route("/problem", get(|| async { Problem::new(Code::Overloaded, "Full.") }))
        .route("/count", post(count))
        .route("/gate", get(wait))
}

fn gateway(options: Options) -> Gateway {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    gateway_over(options, listener.address, listener.socket)
}

fn gateway_over(options: Options, address: SocketAddr, acceptor: impl Accept) -> Gateway {
    gateway_in(options, address, acceptor, Environment::system())
}

fn gateway_in(options: Options, address: SocketAddr, acceptor: impl Accept, environment: Environment) -> Gateway {
    let metrics = Metrics::new();
    let (arrived, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let service = Guard::default().protect(guard::complete(router(Arc::clone(&arrived), Arc::clone(&gate))));
    let common = Common::new(options, &environment, Arc::clone(&metrics));
    let server = serve(acceptor, address, service, common);
    Gateway { server, environment, metrics, arrived, gate }
}

impl Gateway {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server.address()).await.unwrap()
    }

    /// Sends bytes and reads until the gateway closes.
    async fn converse(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        rest(&mut stream).await
    }

    async fn http2(&self) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
        let io = TokioIo::new(self.connect().await);
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        Environment::system().spawn(connection);
        sender
    }
}

/// Whatever comes until the end of the connection, which may be a reset.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection stays open");
    assert!(read.is_ok() || read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one answer with a `content-length` and leaves the connection open.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    loop {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("no answer").unwrap();
        assert_ne!(read, 0, "closed within an answer: {text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() >= length.parse().unwrap() {
            return text;
        }
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn statuses(text: &str) -> Vec<&str> {
    text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect()
}

const HOST: &str = "Host: localhost\r\n";

#[tokio::test]
async fn each_refused_request_is_answered_once_and_the_connection_closed() {
    let gateway = gateway(options(|limits| limits.body_bytes = Some(1_000)));
    let next = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = |fields: &str, body: &str| format!("POST /count HTTP/1.1\r\n{HOST}{fields}\r\n{body}{next}");
    let chunks = "7d0\r\n".to_owned() + &"x".repeat(2_000) + "\r\n0\r\n\r\n";
    let fields = "a: b\r\n".repeat(101);
    let large = format!("a: {}\r\n", "b".repeat(40 * 1024));
    let larger = format!("a: {}\r\n", "b".repeat(100 * 1024));
    let cases = [
        ("431", "headers-too-large", post(&fields, "")),
        ("431", "headers-too-large", post(&large, "")),
        ("431", "headers-too-large", post(&larger, "")),
        ("413", "body-too-large", post("Content-Length: 1001\r\n", "")),
        ("413", "body-too-large", post("Content-Length: 99999999999\r\nExpect: 100-continue\r\n", "")),
        ("413", "body-too-large", post("Transfer-Encoding: chunked\r\n", &chunks)),
        ("400", "ambiguous-framing", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("400", "ambiguous-framing", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n")),
        ("400", "ambiguous-framing", post("Content-Length: 0\r\ntransfer-encoding: CHUNKED\r\n", "0\r\n\r\n")),
        ("400", "malformed-request", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc")),
        ("400", "malformed-request", post("Content-Length: 3, 4\r\n", "abc")),
        ("400", "malformed-request", post("Content-Length: +3\r\n", "abc")),
        ("400", "malformed-request", post("Transfer-Encoding: identity\r\n", "abc")),
        ("400", "malformed-request", post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n")),
        ("400", "malformed-request", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")),
        ("400", "malformed-request", post("a: b\r\n folded\r\n", "")),
        (
            "400",
            "malformed-request",
            format!("POST /count HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}"),
        ),
        ("400", "malformed-request", format!("POST /count\r\n{HOST}\r\n{next}")),
        ("400", "malformed-request", format!("\u{16}\u{3}\u{1} a TLS hello\r\n\r\n{next}")),
    ];
    for (status, code, request) in cases {
        let told = &request[..request.len().min(120)];
        let text = gateway.converse(request.as_bytes()).await;
        assert_eq!(statuses(&text), [status], "{told:?}: {text}");
        assert!(text.contains(code), "{told:?}: {text}");
    }
    eventually("every connection closed", || gateway.server.connections() == 0).await;
}

#[tokio::test]
async fn what_is_not_refused_is_answered_on_one_connection() {
    let gateway = gateway(Options::default());
    let mut stream = gateway.connect().await;
    let chunked = format!("POST /count HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let cases = [
        (format!("GET /livez HTTP/1.1\r\n{HOST}\r\n"), "alive"),
        (chunked.clone(), "3"),
        (chunked, "3"),
        (format!("POST /count HTTP/1.1\r\n{HOST}Content-Length: 2\r\n\r\nab"), "2"),
        (format!("GET http://localhost/livez HTTP/1.1\r\n{HOST}\r\n"), "alive"),
        (format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.server.address()), "alive"),
        ("GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), "foreign-host"),
        ("GET /livez HTTP/1.1\r\n\r\n".to_owned(), "invalid-host"),
        (format!("GET /livez HTTP/1.1\r\n{HOST}{HOST}\r\n"), "invalid-host"),
        (format!("GET http://evil.example/livez HTTP/1.1\r\n{HOST}\r\n"), "invalid-host"),
        (format!("GET /livez HTTP/1.1\r\n{HOST}Origin: https://evil.example\r\n\r\n"), "foreign-origin"),
        (format!("GET /livez/../count HTTP/1.1\r\n{HOST}\r\n"), "ambiguous-path"),
        (format!("CONNECT localhost:80 HTTP/1.1\r\n{HOST}\r\n"), "malformed-request"),
        (format!("GET /livez HTTP/1.1\r\n{HOST}\r\n"), "alive"),
    ];
    for (request, expected) in cases {
        stream.write_all(request.as_bytes()).await.unwrap();
        let text = answer(&mut stream).await;
        assert!(text.contains(expected), "{request:?}: {text}");
    }
    let text = gateway.metrics.render();
    assert!(text.contains(r#"route="/livez",method="GET",status="2xx"} 4"#), "{text}");
    assert!(text.contains(r#"route="none",method="GET",status="4xx"} 6"#), "{text}");
}

#[tokio::test]
async fn a_chunked_request_that_came_before_its_turn_ends_the_connection() {
    let gateway = gateway(Options::default());
    let one = format!("GET /livez HTTP/1.1\r\n{HOST}\r\n");
    let two = format!("POST /count HTTP/1.1\r\n{HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let text = gateway.converse(format!("{one}{two}{one}").as_bytes()).await;
    assert_eq!(statuses(&text), ["200", "200"], "{text}");
}

#[tokio::test]
async fn a_header_must_come_in_time() {
    let gateway = gateway(options(|limits| limits.header_timeout = SHORT));
    assert_eq!(gateway.converse(b"").await, "");
    assert_eq!(gateway.converse(b"PRI * HTTP/2.0\r\n").await, "");
    assert_eq!(gateway.converse(b"GET /livez HTTP/1.1\r\nHost: loc").await, "");
    let second = format!("GET /livez HTTP/1.1\r\n{HOST}\r\n");
    let mut stream = gateway.connect().await;
    stream.write_all(second.as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.contains("alive"));
    // The connection may rest longer than that; only the next header is timed again, from its first byte.
    tokio::time::sleep(SHORT * 3).await;
    stream.write_all(&second.as_bytes()[..20]).await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(gateway.metrics.connections_refused("header"), 4);
    assert_eq!(gateway.metrics.connections_refused("idle"), 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not() {
    let gateway = gateway(options(|limits| limits.idle_timeout = SHORT));
    let mut waiting = gateway.connect().await;
    waiting.write_all(format!("GET /gate HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    eventually("the request arrived", || gateway.arrived.load(Ordering::SeqCst) == 1).await;
    let text = gateway.converse(format!("GET /livez HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await;
    assert_eq!(statuses(&text), ["200"]);
    let mut http2 = gateway.http2().await;
    let livez = || http::Request::get("http://localhost/livez").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(http2.send_request(livez()).await.unwrap().status(), 200);
    eventually("both were closed", || gateway.metrics.connections_refused("idle") == 2).await;
    eventually("the client was told", || http2.is_closed()).await;
    eventually("only the waiting one is open", || gateway.server.connections() == 1).await;
    gateway.gate.add_permits(1);
    assert!(answer(&mut waiting).await.contains("passed"));
}

#[tokio::test]
async fn a_body_must_keep_its_pace() {
    let pace = BodyPace { grace: SHORT, bytes_per_second: 1024 };
    let gateway = gateway(options(|limits| limits.body_pace = Some(pace)));
    let head = format!("POST /count HTTP/1.1\r\n{HOST}Content-Length: 10\r\n\r\nabc");
    let text = gateway.converse(head.as_bytes()).await;
    assert_eq!(statuses(&text), ["408"], "{text}");
    assert!(text.contains("body-too-slow") && text.contains("connection: close"), "{text}");

    // Half a body and then the end of the connection: nobody is left to answer, and nothing is left behind.
    let mut stream = gateway.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    eventually("every connection closed", || gateway.server.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let gateway = gateway(options(|limits| limits.write_timeout = SHORT));
    let mut stream = gateway.connect().await;
    stream.write_all(format!("GET /large HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    eventually("the connection was cut", || gateway.metrics.connections_refused("unread") == 1).await;
    eventually("the connection closed", || gateway.server.connections() == 0).await;
    // The same answer is given to one that reads.
    let mut stream = gateway.connect().await;
    stream.write_all(format!("GET /large HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.len() > 64 * 1024 * 1024);
    assert_eq!(gateway.metrics.connections_refused("unread"), 1);
}

#[tokio::test]
async fn connections_beyond_the_cap_are_told_so() {
    for (reason, total, per_address) in [("address", 10, 2), ("total", 2, 10)] {
        let gateway = gateway(options(|limits| {
            limits.connections = total;
            limits.connections_per_address = per_address;
        }));
        let first = gateway.connect().await;
        let _second = gateway.connect().await;
        eventually("both are open", || gateway.server.connections() == 2).await;
        let request = format!("GET /livez HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n");
        let text = gateway.converse(request.as_bytes()).await;
        assert_eq!(statuses(&text), ["503"], "{text}");
        assert!(text.contains("retry-after: 1\r\n") && text.contains("too-many-connections"), "{text}");
        assert_eq!(gateway.metrics.connections_refused(reason), 1);
        drop(first);
        eventually("a place is free", || gateway.server.connections() == 1).await;
        assert_eq!(statuses(&gateway.converse(request.as_bytes()).await), ["200"]);
    }
}

#[tokio::test]
async fn http2_with_prior_knowledge() {
    let gateway = gateway(Options::default());
    let mut client = gateway.http2().await;
    let field = "b".repeat(30);
    let many = (0..101).map(|index| (format!("field-{index}"), field.clone())).collect::<Vec<_>>();
    let cases = [
        ("http://localhost/livez", vec![], 200),
        ("http://evil.example/livez", vec![], 403),
        ("http://localhost/livez", vec![("origin".to_owned(), "http://evil.example".to_owned())], 403),
        ("http://localhost//livez", vec![], 400),
        ("http://localhost/livez", many, 431),
        ("http://localhost/livez", vec![], 200),
    ];
    for (uri, fields, status) in cases {
        let mut request = http::Request::get(uri);
        for (name, value) in &fields {
            request = request.header(name, value);
        }
        let response = client.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.version()),
            (status, http::Version::HTTP_2),
            "{uri} {fields:?}"
        );
    }
    assert_eq!(gateway.server.connections(), 1);
}

#[tokio::test]
async fn shutdown_lets_requests_in_flight_end_and_takes_no_new_ones() {
    let gateway = gateway(Options::default());
    let mut stream = gateway.connect().await;
    stream.write_all(format!("GET /gate HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    let mut client = gateway.http2().await;
    let request = http::Request::get("http://localhost/gate").body(Empty::new()).unwrap();
    let response = gateway.environment.spawn(client.send_request(request));
    let _idle = gateway.connect().await;
    eventually("both requests arrived", || gateway.arrived.load(Ordering::SeqCst) == 2).await;

    let Gateway { server, environment, gate, .. } = gateway;
    let address = server.address();
    let shutdown = environment.spawn(server.shutdown(PATIENCE));
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("still accepts");
    gate.add_permits(2);
    let text = rest(&mut stream).await;
    assert!(text.contains("connection: close") && text.ends_with("passed"), "{text}");
    let body = response.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "passed");
    // Both clients still hold their ends, so it was the gateway that closed.
    assert_eq!(shutdown.await.unwrap(), 0);
    drop(client);
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut() {
    let gateway = gateway(Options::default());
    let mut stream = gateway.connect().await;
    stream.write_all(format!("GET /gate HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    let mut client = gateway.http2().await;
    let request = http::Request::get("http://localhost/gate").body(Empty::new()).unwrap();
    let response = gateway.environment.spawn(client.send_request(request));
    eventually("both requests arrived", || gateway.arrived.load(Ordering::SeqCst) == 2).await;
    assert_eq!(gateway.server.shutdown(SHORT).await, 2);
    assert_eq!(rest(&mut stream).await, "");
    assert!(response.await.unwrap().is_err());
    // The streams' handlers are gone too, so the environment has no task left.
    assert!(gateway.environment.stop(PATIENCE).await);
}

#[tokio::test]
async fn a_stopping_environment_ends_the_listener() {
    let gateway = gateway(options(|limits| limits.shutdown_grace = SHORT));
    let mut stream = gateway.connect().await;
    stream.write_all(format!("GET /gate HTTP/1.1\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    eventually("the request arrived", || gateway.arrived.load(Ordering::SeqCst) == 1).await;
    assert!(gateway.environment.stop(PATIENCE).await);
    assert_eq!(gateway.server.connections(), 0);
}

/// Fails so many times before it accepts.
struct Failing {
    socket: TcpListener,
    failures: AtomicUsize,
}

impl Accept for Failing {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let failed = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match failed {
            // Too many open files, and a client that left.
            Ok(left) if left % 2 == 0 => Err(io::Error::from_raw_os_error(24)),
            Ok(_) => Err(ErrorKind::ConnectionAborted.into()),
            Err(_) => self.socket.accept().await,
        }
    }
}

#[tokio::test]
async fn errors_of_accepting_do_not_end_the_listener() {
    let Listener { socket, address } = Listener::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let gateway = gateway_over(Options::default(), address, Failing { socket, failures: AtomicUsize::new(5) });
    let request = format!("GET /livez HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n");
    assert_eq!(statuses(&gateway.converse(request.as_bytes()).await), ["200"]);
}

#[tokio::test]
async fn another_protocol_says_the_same_in_its_own_words() {
    fn shape(path: &str, problem: Problem) -> Response {
        let words = format!("{path} {}", problem.code().name());
        (problem.code().status(), [("x-shape", "own")], words).into_response()
    }
    let gateway = gateway(Options { shape, ..options(|limits| limits.body_bytes = Some(3)) });
    let cases = [
        ("GET /problem HTTP/1.1\r\n", "/problem overloaded"),
        ("GET /nothing HTTP/1.1\r\n", "/nothing not-found"),
        ("DELETE /livez HTTP/1.1\r\n", "/livez method-not-allowed"),
        ("GET /livez HTTP/1.1\r\nOrigin: null\r\n", "/livez foreign-origin"),
        ("POST /count HTTP/1.1\r\nContent-Length: 4\r\n", "/count body-too-large"),
    ];
    for (head, words) in cases {
        let text = gateway.converse(format!("{head}{HOST}Connection: close\r\n\r\n").as_bytes()).await;
        assert!(text.contains("x-shape: own") && text.ends_with(words), "{head:?}: {text}");
    }
}

#[tokio::test]
async fn only_loopback_is_listened_on_unless_access_is_configured() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let error = Listener::bind(address.parse().unwrap(), false).unwrap_err();
        assert!(matches!(error, BindError::NotLoopback { .. }), "{error}");
    }
    let open = Listener::bind("0.0.0.0:0".parse().unwrap(), true).unwrap();
    assert_ne!(open.address().port(), 0);
    let error = Listener::bind(open.address(), true).unwrap_err();
    assert!(matches!(&error, BindError::Refused { address, .. } if *address == open.address()), "{error}");
}
