//! `tail`: printing, ending, and going on after a broken connection.

use super::server::After;
use super::{Answer, Invocation, Server, invoke, problem};

fn event(id: &str) -> String {
    format!(
        "id: c-{id}\nevent: cloudevent\ndata: {{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/s\",\"type\":\"t\",\
         \"time\":\"2026-01-31T08:00:00Z\",\"partitionkey\":\"k\",\"data\":{{\"n\": 1}}}}\n\n"
    )
}

fn line(id: &str) -> String {
    format!("2026-01-31T08:00:00Z t /s {id} key=k {{\"n\": 1}}\n")
}

#[tokio::test]
async fn ends_after_the_asked_number() {
    let body = format!(": keep-alive\n\n{}{}{}", event("1"), event("2"), event("3"));
    let server = Server::new([Answer::stream(&[&body], After::Stay)]).await;
    let outcome = invoke(
        &server.url,
        &["tail", "orders", "--from", "2026-01-01T00:00:00+02:00", "--limit", "2", "--partition", "1"],
    )
    .await;
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    assert_eq!(outcome.out, line("1") + &line("2"));
    let request = &server.requests()[0];
    assert_eq!(request.line, "GET /topics/orders/events?from=2026-01-01T00%3A00%3A00%2B02%3A00&partition=1");
    assert_eq!(request.header("accept"), Some("text/event-stream"));
}

#[tokio::test]
async fn events_in_one_line() {
    let cases = [
        (r#"{"id":"1","source":"s","type":"t"}"#, "- t s 1\n"),
        (
            r#"{"id":"1","source":"s","type":"t","datacontenttype":"text/plain","data":"a\n\u001b[2Jb"}"#,
            "- t s 1 a\\n\\u{1b}[2Jb\n",
        ),
        (r#"{"id":"1","source":"s","type":"t","data":"text"}"#, "- t s 1 \"text\"\n"),
        (r#"{"id":"1","source":"s","type":"t","data_base64":"AAECAw=="}"#, "- t s 1 <4 bytes>\n"),
        (r#"{"id":"\u202e1","source":"s","type":"t","data":null}"#, "- t s \\u{202e}1 null\n"),
        ("no object", "no object\n"),
    ];
    for (document, printed) in cases {
        let stream = format!("event: cloudevent\ndata: {document}\n\n");
        let server = Server::new([Answer::stream(&[&stream], After::Stay)]).await;
        let outcome = invoke(&server.url, &["tail", "orders", "--limit", "1"]).await;
        assert_eq!((outcome.code, outcome.out.as_str()), (0, printed), "{document}");
    }
}

#[tokio::test]
async fn json_is_printed_as_it_came() {
    let stream = "id: 1\nevent: cloudevent\ndata: {\"b\": 1,\ndata: \"a\":  2}\n\n";
    let server = Server::new([Answer::stream(&[stream], After::Stay)]).await;
    let outcome = invoke(&server.url, &["tail", "orders", "--limit", "1", "-o", "json"]).await;
    assert_eq!(outcome.out, "{\"b\": 1,\"a\":  2}\n");
}

#[tokio::test]
async fn goes_on_where_it_was() {
    let server = Server::new([
        Answer::stream(&[&event("1"), "id: c-2\nevent: cloudevent\ndata: {\"unfinish"], After::Break),
        problem(503, "shutting-down", "The gateway is shutting down.", ""),
        Answer::stream(&[&event("2")], After::End),
        Answer::stream(&[&event("3")], After::Stay),
    ])
    .await;
    let outcome = invoke(&server.url, &["tail", "orders", "--from", "earliest", "--limit", "3"]).await;
    assert_eq!((outcome.code, outcome.out), (0, line("1") + &line("2") + &line("3")));
    let resumed: Vec<_> =
        server.requests().iter().map(|request| request.header("last-event-id").map(str::to_owned)).collect();
    assert_eq!(resumed, [None, Some("c-1".into()), Some("c-1".into()), Some("c-2".into())]);
    let told: Vec<&str> = outcome.err.lines().map(|line| line.split(';').next().unwrap()).collect();
    assert_eq!(told.len(), 3, "{}", outcome.err);
    assert_eq!(told[1], "The gateway is shutting down");
    assert!(outcome.err.lines().all(|line| line.contains("; reconnecting in ")), "{}", outcome.err);
}

#[tokio::test]
async fn a_break_before_the_first_event_loses_none() {
    let server = Server::new([
        Answer::Stream { pieces: vec![": hello\n\n".into()], after: After::Break, position: Some("c12") },
        Answer::stream(&[&event("1")], After::Stay),
    ])
    .await;
    let outcome = invoke(&server.url, &["tail", "orders", "--limit", "1"]).await;
    assert_eq!(outcome.code, 0);
    assert_eq!(server.lines(), ["GET /topics/orders/events?from=latest", "GET /topics/orders/events?from=c12"]);
}

#[tokio::test]
async fn a_refusal_ends_it() {
    let lost = "event: problem\ndata: {\"title\":\"The position was trimmed.\",\"status\":410,\"code\":\"position-lost\",\
                \"detail\":\"begin with earliest\"}\n\n";
    let server = Server::new([Answer::stream(&[&event("1"), lost], After::Stay)]).await;
    let outcome = invoke(&server.url, &["tail", "orders"]).await;
    assert_eq!((outcome.code, outcome.out), (1, line("1")));
    assert_eq!(
        outcome.err,
        "error: The position was trimmed: begin with earliest\n  see docs/errors.md#position-lost\n"
    );
}

#[tokio::test]
async fn an_interrupt_is_a_good_end() {
    let server = Server::new([Answer::stream(&[&event("1")], After::Stay)]).await;
    let invocation = Invocation::new(&server.url, &["tail", "orders"]);
    let stop = invocation.environment.stopping().clone();
    let interrupt = async {
        while server.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(invocation.run(), interrupt);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
}
