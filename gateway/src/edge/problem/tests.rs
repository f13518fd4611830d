use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use axum::response::IntoResponse;
use http_body_util::BodyExt as _;
use tidegate_backbone::{Error, ErrorKind, Position};

use super::*;

#[test]
fn the_page_of_codes_and_the_table_in_the_code_are_equal() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md");
    let text = fs::read_to_string(&page).unwrap();
    let mut documented = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let code = cells[0].trim_matches('`').to_owned();
        assert!(documented.insert(code, (cells[1].to_owned(), cells[2].to_owned())).is_none(), "twice: {line}");
    }
    let table: BTreeMap<_, _> = Code::ALL
        .iter()
        .map(|code| (code.name().to_owned(), (code.status().as_u16().to_string(), code.title().to_owned())))
        .collect();
    assert_eq!(table.len(), Code::ALL.len(), "two codes have one name");
    assert_eq!(documented, table);
}

#[test]
fn every_kind_of_error_has_its_code() {
    let cases = [
        (ErrorKind::Unavailable, "unavailable", 503, Some(1)),
        (ErrorKind::Unknown, "outcome-unknown", 504, None),
        (ErrorKind::Backpressure { retry_after: Duration::from_millis(2_100) }, "overloaded", 503, Some(3)),
        (ErrorKind::Backpressure { retry_after: Duration::ZERO }, "overloaded", 503, Some(1)),
        (ErrorKind::Conflict, "conflict", 409, None),
        (ErrorKind::Fenced { epoch: 3 }, "unavailable", 503, Some(1)),
        (ErrorKind::NotFound, "not-found", 404, None),
        (ErrorKind::TooLarge { limit_bytes: 5 }, "event-too-large", 413, None),
        (ErrorKind::PositionLost { earliest: Position(7) }, "position-lost", 410, None),
        (ErrorKind::Denied, "broker-refused", 502, None),
        (ErrorKind::Misconfigured, "broker-misconfigured", 502, None),
        (ErrorKind::StorageFull, "storage-full", 507, None),
        (ErrorKind::DataLoss, "data-loss", 500, None),
        (ErrorKind::Closed, "shutting-down", 503, Some(1)),
    ];
    for (kind, name, status, retry_after) in cases {
        let error = Error::new(kind.clone(), "appending to topic a failed").with_source("secret-host:4222");
        let problem = Problem::from(&error);
        assert_eq!((problem.code().name(), problem.code().status().as_u16()), (name, status), "{kind:?}");
        assert!(!problem.detail().contains("secret"), "the cause reached the client: {}", problem.detail());
        let response = problem.into_response();
        let told = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse::<u64>().unwrap());
        assert_eq!(told, retry_after, "{kind:?}");

        let unknown = Problem::from(Error::new(kind, "appending").outcome_unknown());
        assert_eq!(unknown.code(), Code::OutcomeUnknown, "an unknown outcome was told as a failure");
    }
}

#[tokio::test]
async fn the_document_names_every_fault() {
    let response = Problem::new(Code::InvalidEvent, "Two faults.")
        .with_faults([
            Fault { attribute: "id".into(), reason: "is empty".into() },
            Fault { attribute: "source".into(), reason: "is missing".into() },
        ])
        .with_receipts(vec![serde_json::Value::Null])
        .into_response();
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
        serde_json::json!({
            "type": "https://tidegate.dev/errors#invalid-event",
            "title": "The event is not a valid CloudEvent.",
            "status": 400,
            "code": "invalid-event",
            "detail": "Two faults.",
            "faults": [{"attribute": "id", "reason": "is empty"}, {"attribute": "source", "reason": "is missing"}],
            "receipts": [null],
        })
    );
}
