use std::collections::BTreeSet;
use std::path::Path;

use http::Method;
use serde_json::Value;

use super::super::tests::Gateway;
use super::*;

fn value() -> Value {
    serde_json::to_value(document()).unwrap()
}

/// Every operation as (method, path, its object).
fn operations(document: &Value) -> Vec<(Method, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let mut found = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            found.push((method.to_uppercase().parse().unwrap(), path.as_str(), operation));
        }
    }
    assert!(found.len() > 15, "the document was not understood");
    found
}

/// A path whose parameters name nothing that is there.
fn filled(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "none-such" } else { part }).collect::<Vec<_>>().join("/")
}

#[test]
fn the_committed_document_is_the_one_that_the_code_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let made = write(&document());
    if std::env::var_os("TIDEGATE_REWRITE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        made == committed,
        "docs/openapi.json differs from the routes; write it anew: TIDEGATE_REWRITE=1 cargo test -p tidegate openapi"
    );
}

#[test]
fn every_operation_is_described() {
    let document = value();
    let tags: BTreeSet<&str> = TAGS.iter().map(|(name, _)| *name).collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let text = |member: &str| operation[member].as_str().unwrap_or_default().trim();
        assert!(!text("summary").is_empty() && !text("description").is_empty(), "{method} {path} says nothing");
        assert!(ids.insert(text("operationId")), "{method} {path}: the operation id is taken");
        let tag = operation["tags"][0].as_str().unwrap_or_default();
        assert!(tags.contains(tag), "{method} {path}: the tag {tag:?} is unknown");
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let described = |parameter: &Value| parameter["description"].as_str().is_some_and(|text| !text.is_empty());
        assert!(parameters.iter().all(described), "{method} {path}: a parameter says nothing");
        for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let named = |parameter: &Value| parameter["name"] == name && parameter["in"] == "path";
            assert!(parameters.iter().any(named), "{method} {path}: {name} is not described");
        }
        let responses = operation["responses"].as_object().unwrap();
        let succeeds = |status: &String| status.starts_with('2') || status == "101";
        assert!(responses.keys().any(succeeds), "{method} {path}: no success");
        assert!(responses.contains_key("500"), "{method} {path}: no refusals");
        for (status, response) in responses {
            let refused = response["content"].get("application/problem+json").is_some();
            assert_eq!(refused, status.starts_with(['4', '5']), "{method} {path}: {status} is no problem document");
        }
    }
}

#[test]
fn every_reference_leads_to_a_schema() {
    let document = value();
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 20, "the document was not understood");
    for reference in references {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
}

fn collect_references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| collect_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_described_operation_is_answered_and_no_other_method() {
    let gateway = Gateway::start().await;
    let document = value();
    for (method, path, operation) in operations(&document) {
        // OPTIONS is there for senders of web hooks, who say who they are.
        let origin = [("webhook-request-origin", "events.example.com")];
        let headers = if method == Method::OPTIONS { &origin[..] } else { &[] };
        let answer = gateway.send_with(method.clone(), &filled(path), headers, "").await;
        let missing = matches!(answer.code(), "not-found" | "method-not-allowed");
        assert!(!missing, "{method} {path} is described and not there: {answer:?}");
        let status = answer.status.as_str();
        assert!(operation["responses"].get(status).is_some(), "{method} {path} answers {status}: {answer:?}");
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        let answer = gateway.send(Method::PATCH, &filled(path), "").await;
        assert_eq!((answer.status.as_u16(), answer.code()), (405, "method-not-allowed"), "{path}");
        let allow = answer.headers["allow"].to_str().unwrap();
        let mut allowed: BTreeSet<String> = allow.split(',').map(|method| method.trim().to_lowercase()).collect();
        allowed.remove("head");
        let described: BTreeSet<String> = item.as_object().unwrap().keys().cloned().collect();
        assert_eq!(allowed, described, "{path}");
    }
    let answer = gateway.send(Method::GET, "/none-such", "").await;
    assert_eq!((answer.status.as_u16(), answer.code()), (404, "not-found"));
    let answer = gateway.send(Method::GET, "/openapi.json", "").await;
    assert_eq!((answer.status.as_u16(), &answer.body), (200, &document));
    gateway.stop().await;
}
