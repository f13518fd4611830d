//! Requests that two readers could understand differently (RFC 9112 11.2). Each carries a second request inside, where one
//! of both readings would find it. A request that is ambiguous gets 400 and the end of its connection; one that is not is
//! one request. In neither case does the gateway see the one inside.

use std::time::Duration;

use tidegate_tests::client::Outgoing;
use tidegate_tests::home::Home;
use tidegate_tests::raw;
use tokio::io::AsyncReadExt;

use super::start;

/// What is hidden inside: a publish that leaves a trace.
const INSIDE: &str = "POST /topics/smuggled?type=smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
                      Content-Length: 1\r\n\r\nx";

/// What is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// One answer, 400 or another refusal, and the connection is closed.
    Refused,
    /// One answer, 202 or 200, and the body ate what was inside.
    Taken,
    /// The bytes are two requests by any reading, and both are answered.
    Both,
}
use Right::{Both, Refused, Taken};

struct Case {
    name: &'static str,
    bytes: String,
    right: Right,
}

/// A publish with these fields and this body, on a connection that stays open.
fn post(name: &'static str, right: Right, fields: &str, body: &str) -> Case {
    let bytes =
        format!("POST /topics/outside HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n{fields}\r\n{body}");
    Case { name, bytes, right }
}

fn whole(name: &'static str, right: Right, bytes: impl Into<String>) -> Case {
    Case { name, bytes: bytes.into(), right }
}

fn cases() -> Vec<Case> {
    let inside = INSIDE;
    let length = inside.len();
    // As chunks it ends at once, as so many bytes it hides what follows.
    let ends = format!("0\r\n\r\n{inside}");
    let eats = format!("{length:x}\r\n{inside}\r\n0\r\n\r\n");
    let long = ends.len();
    let chunked = "Transfer-Encoding: chunked\r\n";
    let get = |rest: &str| format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{rest}");
    vec![
        // Two ways to tell the length.
        post("CL.TE", Refused, &format!("Content-Length: {long}\r\n{chunked}"), &ends),
        post("TE.CL", Refused, &format!("{chunked}Content-Length: {long}\r\n"), &ends),
        post("CL 0 and TE", Refused, &format!("Content-Length: 0\r\n{chunked}"), &ends),
        post(
            "TE.CL in other letters",
            Refused,
            &format!("tRANSFER-eNCODING: chunked\r\ncONTENT-lENGTH: {long}\r\n"),
            &ends,
        ),
        post("CL CL differing", Refused, &format!("Content-Length: 0\r\nContent-Length: {length}\r\n"), inside),
        post(
            "CL CL differing, reversed",
            Refused,
            &format!("Content-Length: {length}\r\nContent-Length: 0\r\n"),
            inside,
        ),
        post("CL list differing", Refused, &format!("Content-Length: 0, {length}\r\n"), inside),
        // Lengths that are no numbers.
        post("CL with a plus", Refused, &format!("Content-Length: +{length}\r\n"), inside),
        post("CL with a minus", Refused, &format!("Content-Length: -{length}\r\n"), inside),
        post("CL in hexadecimal", Refused, &format!("Content-Length: 0x{length:x}\r\n"), inside),
        post("CL with a fraction", Refused, &format!("Content-Length: {length}.0\r\n"), inside),
        post("CL with a space inside", Refused, "Content-Length: 1 0\r\n", inside),
        post("CL with letters", Refused, &format!("Content-Length: {length}x\r\n"), inside),
        post("CL empty", Refused, "Content-Length: \r\n", inside),
        post("CL that overflows", Refused, "Content-Length: 99999999999999999999999\r\n", inside),
        post("CL in quotes", Refused, &format!("Content-Length: \"{length}\"\r\n"), inside),
        post("CL with an underscore", Refused, "Content-Length: 1_0\r\n", inside),
        // Codings.
        post("TE xchunked", Refused, "Transfer-Encoding: xchunked\r\n", &ends),
        post("TE identity", Refused, "Transfer-Encoding: identity\r\n", &ends),
        post("TE chunked, identity", Refused, "Transfer-Encoding: chunked, identity\r\n", &ends),
        post("TE chunked, gzip", Refused, "Transfer-Encoding: chunked, gzip\r\n", &ends),
        post("TE gzip", Refused, "Transfer-Encoding: gzip\r\n", &ends),
        post("TE chunked in quotes", Refused, "Transfer-Encoding: \"chunked\"\r\n", &ends),
        post("TE with a semicolon", Refused, "Transfer-Encoding: chunked;q=1\r\n", &ends),
        post("TE with a vertical tab", Refused, "Transfer-Encoding:\u{b}chunked\r\n", &ends),
        post("TE with a null", Refused, "Transfer-Encoding: chunked\u{0}\r\n", &ends),
        post("TE empty", Refused, "Transfer-Encoding: \r\n", &ends),
        post("TE chunk", Refused, "Transfer-Encoding: chunk\r\n", &ends),
        post("TE and then identity", Refused, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", &ends),
        // Fields that are written wrongly.
        post("a space before the colon of TE", Refused, "Transfer-Encoding : chunked\r\n", &ends),
        post("a space before the colon of CL", Refused, &format!("Content-Length : {length}\r\n"), inside),
        post("a tab before the colon of TE", Refused, "Transfer-Encoding\t: chunked\r\n", &ends),
        post("a space before TE", Refused, " Transfer-Encoding: chunked\r\n", &ends),
        post("a folded TE", Refused, "X: y\r\n Transfer-Encoding: chunked\r\n", &ends),
        post("TE folded behind its colon", Refused, "Transfer-Encoding:\r\n chunked\r\n", &ends),
        post("a field without a colon", Refused, "Transfer-Encoding\r\n", &ends),
        post("a field without a name", Refused, ": chunked\r\n", &ends),
        post("a null in a name", Refused, "Transfer\u{0}Encoding: chunked\r\n", &ends),
        post("a carriage return alone", Refused, "X: y\rTransfer-Encoding: chunked\r\n", &ends),
        post("a bracket in a name", Refused, "[Transfer-Encoding]: chunked\r\n", &ends),
        // Chunks.
        post("a chunk size that overflows", Refused, chunked, &format!("fffffffffffffffff\r\n{inside}")),
        post("a chunk size with a sign", Refused, chunked, &format!("+{length:x}\r\n{inside}\r\n0\r\n\r\n")),
        post("a chunk size with 0x", Refused, chunked, &format!("0x{length:x}\r\n{inside}\r\n0\r\n\r\n")),
        post("a chunk size that is none", Refused, chunked, &format!("xyz\r\n{inside}")),
        post("an empty chunk size", Refused, chunked, &format!("\r\n{inside}")),
        post("a chunk longer than its size", Refused, chunked, &format!("1\r\n{inside}\r\n0\r\n\r\n")),
        post("a chunk size ended by LF", Refused, chunked, &format!("{length:x}\n{inside}\r\n0\r\n\r\n")),
        post("a chunk extension with LF", Refused, chunked, &format!("{length:x};a\n{inside}\r\n0\r\n\r\n")),
        // The first line and the host.
        whole(
            "HTTP/1.0 with TE",
            Refused,
            format!("POST /topics/outside HTTP/1.0\r\nHost: localhost\r\n{chunked}\r\n{ends}"),
        ),
        whole("HTTP/0.9", Refused, format!("GET /livez\r\n\r\n{inside}")),
        whole("HTTP/1.2", Refused, format!("GET /livez HTTP/1.2\r\nHost: localhost\r\n\r\n{inside}")),
        whole("HTTP/2.0 on HTTP/1", Refused, format!("GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n{inside}")),
        whole("a space in the target", Refused, format!("GET /livez x HTTP/1.1\r\nHost: localhost\r\n\r\n{inside}")),
        whole("a space before the method", Refused, format!(" GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n{inside}")),
        whole("a null in the target", Refused, format!("GET /li\u{0}vez HTTP/1.1\r\nHost: localhost\r\n\r\n{inside}")),
        // What is one request by any reading.
        post("CL", Taken, &format!("Content-Length: {length}\r\n"), inside),
        post("CL with leading zeros", Taken, &format!("Content-Length: 000{length}\r\n"), inside),
        post("CL twice the same", Taken, &format!("Content-Length: {length}\r\nContent-Length: {length}\r\n"), inside),
        post("TE", Taken, chunked, &eats),
        post("TE in capitals", Taken, "Transfer-Encoding: CHUNKED\r\n", &eats),
        post("a chunk size with leading zeros", Taken, chunked, &format!("000{length:x}\r\n{inside}\r\n0\r\n\r\n")),
        post("a chunk extension", Taken, chunked, &format!("{length:x};a=\"b\"\r\n{inside}\r\n0\r\n\r\n")),
        post("trailers", Taken, chunked, &format!("{length:x}\r\n{inside}\r\n0\r\nContent-Length: 5\r\n\r\n")),
        post(
            "an underscore makes another field",
            Taken,
            &format!("Content_Length: 0\r\nContent-Length: {length}\r\n"),
            inside,
        ),
        whole("GET with a body", Taken, get(&format!("Content-Length: {length}\r\n\r\n{inside}"))),
        whole(
            "the absolute form",
            Taken,
            format!(
                "POST http://localhost/topics/outside HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{inside}"
            ),
        ),
        whole("a line end before the request", Taken, format!("\r\n{}", get("\r\n"))),
        // Refused by the guard, which leaves the framing clear, so that what follows is a request of its own.
        whole(
            "two hosts",
            Both,
            format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n{}", get("\r\n")),
        ),
        whole("two requests", Both, format!("{}{}", get("\r\n"), get("\r\n"))),
        whole(
            "an upgrade that nobody offers",
            Both,
            format!("{}{}", get("Upgrade: x\r\nConnection: upgrade\r\n\r\n"), get("\r\n")),
        ),
    ]
}

/// The status of each answer that came.
fn statuses(answer: &str) -> Vec<u16> {
    let starts =
        answer.match_indices("HTTP/1.1 ").filter_map(|(at, text)| answer.get(at + text.len()..at + text.len() + 3));
    starts.filter_map(|digits| digits.parse().ok()).collect()
}

/// Sends the bytes, and reads until the gateway closes or has nothing more to say; gives whether it closed.
async fn converse(address: std::net::SocketAddr, case: &Case) -> (String, bool) {
    let mut stream = raw::open(address, case.bytes.as_bytes()).await;
    let mut received = Vec::new();
    let quiet = if case.right == Refused { tidegate_tests::PATIENCE } else { Duration::from_millis(500) };
    loop {
        match tokio::time::timeout(quiet, stream.read_buf(&mut received)).await {
            Err(_) => return (String::from_utf8_lossy(&received).into_owned(), false),
            Ok(Ok(0) | Err(_)) => return (String::from_utf8_lossy(&received).into_owned(), true),
            Ok(Ok(_)) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_hides_another() {
    let home = Home::new();
    let gateway = start(&home, "{}").await;
    let cases = cases();
    let count = cases.len();
    assert!(count >= 60);
    let mut wrong = Vec::new();
    for case in &cases {
        let (answer, closed) = converse(gateway.http(), case).await;
        let statuses = statuses(&answer);
        let right = match case.right {
            Refused => closed && statuses.len() == 1 && (400..500).contains(&statuses[0]),
            Taken => statuses.len() == 1 && matches!(statuses[0], 200 | 202),
            Both => statuses.len() == 2,
        };
        if !right {
            wrong.push(format!("{}: not {:?}: {statuses:?}, closed {closed}: {answer}", case.name, case.right));
        }
        let hidden = gateway.client().get("/topics/smuggled").await.expect("the gateway answers");
        if hidden.status != 404 {
            wrong.push(format!("{}: the request inside was seen", case.name));
            gateway
                .client()
                .send(http::Method::DELETE, "/topics/smuggled", &[], "")
                .await
                .expect("it answers")
                .expect(204);
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));

    // The control: by itself, the request inside is seen.
    let case = whole("alone", Both, INSIDE);
    let (answer, _) = converse(gateway.http(), &case).await;
    assert_eq!(statuses(&answer), [202], "{answer}");
    gateway.client().get("/topics/smuggled").await.expect("the gateway answers").expect(200);
    let event = Outgoing::default();
    gateway.client().publish("outside", &event).await.expect("the gateway answers").expect(202);
    assert!(gateway.terminate().await.success());
}
