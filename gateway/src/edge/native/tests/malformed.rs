//! Whatever is sent to a described operation, the answer has a status that its description names, and never says that the
//! gateway failed.

use http::Method;

use super::Gateway;

const SUBSCRIPTION: &str = r#"{"id": "there", "sink": "https://example.com", "config": {"topics": ["there"]}}"#;

/// Bodies that few operations understand.
const BODIES: &[&[u8]] = &[
    b"",
    b"{",
    b"[]",
    b"null",
    b"\"text\"",
    b"{\"unknown\": 1}",
    b"{\"partitions\": -1}",
    b"{\"partitions\": 99999999999999999999}",
    b"{\"ids\": [\"x\"]}",
    b"{\"ids\": {}, \"edits\": []}",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"\xff\xfe\x00",
    b"apiVersion: tidegate.dev/v1\nkind: Nothing\n",
];
const QUERIES: &[&str] = &[
    "",
    "?none=1",
    "?limit=0",
    "?limit=18446744073709551616",
    "?after=%ff",
    "?after=x&after=y",
    "?from=yesterday&partition=-1",
    "?from=c1.1.1.1.1&partition=0",
    "?from=99999999&partition=0",
    "?filter=%27",
    "?id=0-99999999999999999999",
    "?dryRun=perhaps",
    "?=",
    "?%",
];
const HEADERS: &[(&str, &str)] = &[
    ("content-type", "application/json"),
    ("content-type", "application/cloudevents+json"),
    ("content-type", "application/cloudevents-batch+json"),
    ("content-type", "no media type"),
    ("ce-specversion", "9.9"),
    ("if-match", "\"\", unquoted"),
    ("if-none-match", "\"a\""),
    ("accept", "image/png"),
    ("last-event-id", "%%%"),
    ("idempotency-key", ""),
];

#[tokio::test]
async fn malformed_requests_are_answered_as_described() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.send(Method::PUT, "/topics/there", "").await.status, 201);
    assert_eq!(gateway.send(Method::POST, "/subscriptions", SUBSCRIPTION).await.status, 201);
    let description = gateway.send(Method::GET, "/openapi.json", "").await.body;
    let mut asked = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let mut requests = Vec::new();
            for name in ["there", "none-such", "..a", "a%20b", "%2F", "tidegate.x", "%F0%9F%8C%8A"] {
                requests.push((name, "", HEADERS[0], BODIES[0]));
            }
            requests.extend(QUERIES.iter().map(|query| ("there", *query, HEADERS[0], BODIES[0])));
            requests.extend(HEADERS.iter().map(|header| ("there", "", *header, BODIES[1])));
            requests.extend(BODIES.iter().map(|body| ("there", "", HEADERS[0], *body)));
            for (name, query, header, body) in requests {
                let names = |part: &str| if part.starts_with('{') { name.to_owned() } else { part.to_owned() };
                let target = format!("{}{query}", path.split('/').map(names).collect::<Vec<_>>().join("/"));
                let answer = gateway.send_with(method.clone(), &target, &[header], body).await;
                let (status, told) = (answer.status.as_str(), String::from_utf8_lossy(body));
                let described = operation["responses"].get(status).is_some();
                // What this process does not do, it says.
                let failed = status >= "500" && status != "501";
                assert!(described && !failed, "{method} {target} {header:?} {told}: {answer:?}");
                let is_problem =
                    answer.headers.get("content-type").is_some_and(|kind| kind == "application/problem+json");
                assert_eq!(is_problem, status >= "400", "{method} {target} {header:?} {told}: {answer:?}");
                asked += 1;
            }
            // What a request may have deleted is there for the next operation.
            gateway.send(Method::PUT, "/topics/there", "").await;
            gateway.send(Method::POST, "/subscriptions", SUBSCRIPTION).await;
        }
    }
    assert!(asked > 500, "the description was not understood: {asked} requests");
    gateway.stop().await;
}
