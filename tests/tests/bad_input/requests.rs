//! Whole requests that must be refused, each with its status and a problem document.

use http::Method;
use tidegate_schemas::limits;
use tidegate_tests::home::Home;

use super::check_that_it_serves;

/// A request and the statuses that are right for it.
struct Case {
    name: &'static str,
    method: Method,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    statuses: &'static [u16],
    /// What the answer must name, so that the reader can mend it.
    named: &'static [&'static str],
}

fn case(name: &'static str, statuses: &'static [u16]) -> Case {
    Case { name, method: Method::POST, path: "/topics/t", headers: Vec::new(), body: Vec::new(), statuses, named: &[] }
}

impl Case {
    fn request(mut self, method: Method, path: &'static str) -> Self {
        (self.method, self.path) = (method, path);
        self
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn structured(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("content-type", "application/cloudevents+json").body(body)
    }

    fn batch(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("content-type", "application/cloudevents-batch+json").body(body)
    }

    fn binary(self) -> Self {
        self.header("ce-specversion", "1.0").header("ce-id", "1").header("ce-source", "/s").header("ce-type", "t")
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn naming(mut self, named: &'static [&'static str]) -> Self {
        self.named = named;
        self
    }
}

fn event(id: usize) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t"}}"#)
}

fn cases() -> Vec<Case> {
    let deep = limits::JSON_DEPTH + 1;
    let deep = format!(
        r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{}{}}}"#,
        "[".repeat(deep),
        "]".repeat(deep)
    );
    let many = (0..=limits::BATCH_EVENTS).map(event).collect::<Vec<_>>().join(",");
    vec![
        case("no JSON", &[400]).structured("{\"specversion\":"),
        case("JSON that is no object", &[400]).structured("[1, 2]"),
        case("not UTF-8", &[400]).structured(b"{\"specversion\":\"1.0\",\"id\":\"\xff\"}".as_slice()),
        case("nothing at all", &[400]).structured(""),
        case("every fault at once", &[400])
            .structured(r#"{"specversion":"1.0","id":"","type":"t","time":"yesterday"}"#)
            .naming(&["id", "source", "time"]),
        case("a version of the future", &[400])
            .structured(r#"{"specversion":"2.0","id":"1","source":"/s","type":"t"}"#)
            .naming(&["specversion"]),
        case("data twice", &[400])
            .structured(r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"data_base64":"MQ=="}"#),
        case("too deep", &[400]).structured(deep),
        case("binary mode, attributes missing", &[400])
            .header("ce-specversion", "1.0")
            .header("ce-id", "1")
            .naming(&["source", "type"]),
        case("binary mode, a broken escape", &[400]).binary().header("ce-subject", "%C3%28").naming(&["subject"]),
        case("one bad event in a batch", &[400]).batch(format!("[{},{{\"id\":\"2\"}}]", event(1))),
        case("a batch that is no array", &[400]).batch(event(1)),
        case("too many events in a batch", &[400, 413]).batch(format!("[{many}]")),
        case("an event too large", &[413]).binary().body(vec![b'x'; limits::EVENT_BYTES + 1]),
        case("a body too large", &[413]).binary().body(vec![b'x'; limits::REQUEST_BODY_BYTES + 1]),
        case("a format that is not spoken", &[415])
            .header("content-type", "application/cloudevents+avro")
            .body(event(1)),
        case("a topic name with a space", &[400]).request(Method::POST, "/topics/a%20b").binary(),
        case("a topic name with an empty segment", &[400]).request(Method::POST, "/topics/a..b").binary(),
        case("a topic name that is a pattern", &[400]).request(Method::POST, "/topics/a.*").binary(),
        case("a topic of the gateway's own", &[400, 403]).request(Method::POST, "/topics/tidegate.x").binary(),
        case("an unknown path", &[404]).request(Method::GET, "/nowhere"),
        case("a wrong method", &[405]).request(Method::PATCH, "/topics/t"),
        case("an unknown topic", &[404]).request(Method::GET, "/topics/none/events"),
        case("a position that is none", &[400]).request(Method::GET, "/topics/t/events?from=%00").naming(&["from"]),
        case("a limit that is none", &[400]).request(Method::GET, "/topics/t/events?limit=-1").naming(&["limit"]),
        case("an unknown subscription", &[404]).request(Method::GET, "/subscriptions/none/dead-letters"),
        case("a page of another origin", &[403]).binary().header("origin", "http://evil.example"),
        case("another host's name", &[400, 403, 421]).binary().header("host", "evil.example"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_clear_and_store_nothing() {
    let home = Home::new();
    let gateway = home.start().await;
    // The topic has to be there, so that reading it back is no error of its own.
    check_that_it_serves(gateway.client(), "t", 0).await;
    let mut wrong = Vec::new();
    let cases = cases();
    let count = cases.len();
    for case in cases {
        let headers: Vec<(&str, &str)> = case.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = match gateway.client().send(case.method.clone(), case.path, &headers, case.body).await {
            Ok(answer) => answer,
            Err(error) => {
                wrong.push(format!("{}: no answer: {error}", case.name));
                continue;
            }
        };
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let clear = answer.media_type() == "application/problem+json"
            && problem["status"] == answer.status
            && problem["code"].as_str().is_some_and(|code| !code.is_empty());
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let missing: Vec<_> = case.named.iter().filter(|name| !text.contains(**name)).collect();
        if !case.statuses.contains(&answer.status) {
            wrong.push(format!("{}: {} is none of {:?}: {answer}", case.name, answer.status, case.statuses));
        } else if !clear {
            wrong.push(format!("{}: no problem document with status and code: {answer}", case.name));
        } else if !missing.is_empty() {
            wrong.push(format!("{}: does not name {missing:?}: {answer}", case.name));
        } else if answer.status == 405 && !answer.headers.contains_key("allow") {
            wrong.push(format!("{}: 405 without Allow: {answer}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {count} requests:\n{}", wrong.len(), wrong.join("\n"));
    check_that_it_serves(gateway.client(), "t", 1).await;
}
