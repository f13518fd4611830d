//! What is printed about failures, and the exit codes.

use tokio::net::TcpListener;

use super::server::After;
use super::{Answer, Invocation, Outcome, Server, invoke, problem};

async fn against(answer: Answer, arguments: &str) -> Outcome {
    let server = Server::new([answer]).await;
    let outcome = invoke(&server.url, &arguments.split_whitespace().collect::<Vec<_>>()).await;
    assert_eq!(server.requests().len(), 1, "{arguments}");
    outcome
}

#[tokio::test]
async fn refusals_are_told_with_every_fault() {
    let faulty = serde_json::json!({
        "title": "The event is not a valid CloudEvent.", "status": 400, "code": "invalid-event",
        "detail": "Every fault is listed.\u{1b}[2J",
        "faults": [{"attribute": "id", "reason": "is empty"}, {"attribute": "", "reason": "is too large"}, "plain"],
    });
    let outcome = against(Answer::problem(400, faulty), "publish orders --data 1").await;
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
    assert_eq!(
        outcome.err,
        "error: The event is not a valid CloudEvent: Every fault is listed.\\u{1b}[2J\n  id: is empty\n  is too \
         large\n  plain\n  see docs/errors.md#invalid-event\n"
    );
}

#[tokio::test]
async fn exit_codes() {
    let not_found = || problem(404, "topic-not-found", "There is no such topic.", "orders");
    let unknown = || problem(504, "outcome-unknown", "The request may have had its effect", "no answer");
    let deadline = || problem(504, "deadline-exceeded", "No answer came before the deadline.", "late");
    let cases: [(Answer, &str, u8); 16] = [
        (not_found(), "topics show orders", 1),
        (not_found(), "tail orders", 1),
        (not_found(), "publish orders", 1),
        (problem(503, "unavailable", "The broker cannot be reached", ""), "publish orders", 1),
        (unknown(), "publish orders", 3),
        (unknown(), "topics delete orders", 3),
        (deadline(), "publish orders", 1),
        (Answer::json(504, ""), "publish orders", 3),
        (Answer::json(504, ""), "topics list", 1),
        (Answer::Break, "publish orders", 3),
        (Answer::Break, "dead-letters drop large --all", 3),
        (Answer::Break, "topics list", 1),
        (Answer::Break, "tail orders", 1),
        (Answer::json(200, "[]"), "topics list", 1),
        (Answer::json(202, "surprise"), "publish orders", 3),
        (
            Answer::stream(&["event: problem\ndata: {\"status\":410,\"code\":\"position-lost\"}\n\n"], After::Stay),
            "tail orders",
            1,
        ),
    ];
    for (answer, arguments, code) in cases {
        let shown = format!("{arguments}: {answer:?}");
        let outcome = against(answer, arguments).await;
        assert_eq!(outcome.code, code, "{shown}: {outcome:?}");
        assert!(outcome.err.contains("error: "), "{shown}: {outcome:?}");
    }
}

#[tokio::test]
async fn wrong_payloads_are_wrong_usage_and_nothing_is_sent() {
    for arguments in [
        ["publish", "orders", "--data", "{", "--content-type", "application/json"],
        ["publish", "orders", "--data", "1", "--type", ""],
        ["publish", "orders", "--data", "1", "--content-type", "nonsense"],
    ] {
        let server = Server::new([]).await;
        let outcome = invoke(&server.url, &arguments).await;
        assert_eq!((outcome.code, server.requests().len()), (2, 0), "{arguments:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    for arguments in [&["topics", "list"][..], &["publish", "orders"], &["tail", "orders"]] {
        let outcome = invoke(&url, arguments).await;
        assert_eq!(outcome.code, 1, "{arguments:?}");
        assert!(outcome.err.starts_with(&format!("error: no gateway answers at {url}: ")), "{}", outcome.err);
        assert!(outcome.err.ends_with("start one with: tidegate dev\n"), "{}", outcome.err);
    }
}

#[tokio::test]
async fn something_else_that_listens_there() {
    let html = Answer::Whole {
        status: 502,
        headers: vec![("content-type", "text/html".into())],
        body: "<h1>Bad\nGateway</h1>".into(),
    };
    let outcome = against(html, "topics list").await;
    assert_eq!(outcome.err, "error: The server answered 502 Bad Gateway: <h1>Bad\\nGateway</h1>\n");
    let elsewhere = Answer::json(307, "").with("location", "https://h/topics");
    let outcome = against(elsewhere, "topics list").await;
    assert!(outcome.err.contains("https://h/topics; give that address with --server"), "{}", outcome.err);
    let page = Answer::Whole { status: 200, headers: vec![("content-type", "text/html".into())], body: "hi".into() };
    let outcome = against(page, "tail orders").await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("no stream of events"), "{}", outcome.err);
}

#[tokio::test]
async fn the_token_is_sent_and_not_told() {
    let server = Server::new([problem(401, "unauthenticated", "No valid credentials.", "")]).await;
    let outcome = invoke(&server.url, &["topics", "list", "--token", "sesame"]).await;
    assert_eq!(server.requests()[0].header("authorization"), Some("Bearer sesame"));
    assert_eq!(outcome.code, 1);
    assert!(!outcome.err.contains("sesame"));
}

#[tokio::test]
async fn output_that_nobody_reads() {
    let receipt = || Answer::json(202, "{\"id\":\"1\",\"topic\":\"orders\",\"partition\":0,\"durability\":\"fsync\"}");
    let event = || Answer::stream(&["event: cloudevent\ndata: {}\n\n"], After::Stay);
    // A reader that has seen enough is no failure, but an event that is not accounted for is.
    for (answer, arguments, code) in
        [(event(), &["tail", "orders"][..], 0), (receipt(), &["publish", "orders", "--data", "1"], 1)]
    {
        let server = Server::new([answer]).await;
        let mut invocation = Invocation::new(&server.url, arguments);
        invocation.closed_output = true;
        let outcome = invocation.run().await;
        assert_eq!((outcome.code, outcome.err.is_empty()), (code, code == 0), "{arguments:?}: {outcome:?}");
    }
}
