use axum::body::Body;
use axum::routing::{get, post};
use http::Version;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;

fn service() -> Guarded<Router> {
    let router = Router::new()
        .route("/topics/{topic}", post(|topic: axum::extract::Path<String>| async move { topic.0 }))
        .route("/livez", get(|| async { "alive" }));
    Guard::new(["Gateway.Example".to_owned()]).protect(complete(router))
}

async fn ask(request: http::request::Builder) -> (u16, String) {
    let response = service().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let document: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    (status, document.map_or(text, |document| document["code"].as_str().unwrap().to_owned()))
}

fn get_request(uri: &str) -> http::request::Builder {
    http::Request::builder().method("GET").uri(uri)
}

#[tokio::test]
async fn hosts() {
    let livez = || get_request("/livez");
    let absolute = || get_request("http://localhost:3500/livez");
    let cases = [
        (livez().header("host", "localhost:1"), 200, "alive"),
        (livez().header("host", "gateway.example"), 200, "alive"),
        (livez().header("host", "evil.example"), 403, "foreign-host"),
        (livez(), 400, "invalid-host"),
        (livez().version(Version::HTTP_10), 200, "alive"),
        (livez().version(Version::HTTP_10).header("host", "evil.example"), 403, "foreign-host"),
        (livez().header("host", "localhost").header("host", "localhost"), 400, "invalid-host"),
        (livez().header("host", "user@localhost"), 400, "invalid-host"),
        (absolute().header("host", "localhost:3500"), 200, "alive"),
        (absolute().header("host", "127.0.0.1:3500"), 400, "invalid-host"),
        (absolute(), 400, "invalid-host"),
        (absolute().version(Version::HTTP_2), 200, "alive"),
        (absolute().version(Version::HTTP_2).header("host", "evil.example"), 400, "invalid-host"),
        (get_request("http://evil.example/livez").version(Version::HTTP_2), 403, "foreign-host"),
        (get_request("http://evil.example/livez").header("host", "evil.example"), 403, "foreign-host"),
    ];
    for (request, status, outcome) in cases {
        let told = format!("{request:?}");
        assert_eq!(ask(request).await, (status, outcome.to_owned()), "{told}");
    }
}

#[tokio::test]
async fn origins() {
    let request = || http::Request::builder().method("POST").uri("/topics/a").header("host", "localhost");
    let cases = [
        (request(), 200),
        (request().header("origin", "http://localhost:8080"), 200),
        (request().header("origin", "https://127.0.0.1"), 200),
        (request().header("origin", "http://[::1]:3500"), 200),
        (request().header("origin", "https://gateway.example"), 200),
        (request().header("origin", "https://evil.example"), 403),
        (request().header("origin", "null"), 403),
        (request().header("origin", ""), 403),
        (request().header("origin", "file://localhost"), 403),
        (request().header("origin", "http://localhost@evil.example"), 403),
        (request().header("origin", "http://localhost").header("origin", "http://localhost"), 403),
        (request().header("sec-fetch-site", "cross-site").header("sec-fetch-mode", "no-cors"), 403),
        (request().header("sec-fetch-site", "cross-site").header("sec-fetch-mode", "navigate"), 200),
        (request().header("sec-fetch-site", "same-origin").header("sec-fetch-mode", "cors"), 200),
    ];
    for (request, status) in cases {
        let told = format!("{request:?}");
        let (answered, outcome) = ask(request).await;
        assert_eq!(answered, status, "{told}");
        assert!(status == 200 || outcome == "foreign-origin", "{told}: {outcome}");
    }
}

#[tokio::test]
async fn what_is_dispatched_is_the_canonical_path() {
    let post = |path: &str| http::Request::builder().method("POST").uri(path).header("host", "localhost");
    assert_eq!(ask(post("/%74opics/orders%2Fplaced?x=%2F")).await, (200, "orders.placed".to_owned()));
    assert_eq!(ask(post("/topics/a%2Fb/../c")).await, (400, "ambiguous-path".to_owned()));
    assert_eq!(ask(post("/nothing")).await, (404, "not-found".to_owned()));
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let request = get_request("/topics/a").header("host", "localhost").body(Body::empty()).unwrap();
    let response = service().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "POST");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.extensions().get::<Problem>().unwrap().code(), Code::MethodNotAllowed);
    assert!(response.extensions().get::<Route>().is_some_and(|route| route.0.as_str() == "/topics/{topic}"));
}
