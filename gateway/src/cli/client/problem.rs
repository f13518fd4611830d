//! Refusals of a gateway: problem documents (RFC 9457), or whatever else stands in their place.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::text;

/// Where a code is explained.
const DOCUMENTATION: &str = "docs/errors.md";
/// What is shown of a body that is no problem document.
const EXCERPT_CHARACTERS: usize = 200;

/// Why the gateway refused.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    title: String,
    detail: String,
    code: Option<String>,
    faults: Vec<String>,
    /// Of a publish: what became of each event, where that is known.
    pub(super) receipts: Option<Vec<Option<Box<RawValue>>>>,
    /// What the gateway asks to wait.
    pub(super) retry_after: Option<Duration>,
    /// Whether the request was one that changes something.
    pub(super) of_change: bool,
}

#[derive(Deserialize)]
#[serde(default)]
struct Document {
    title: String,
    status: u16,
    detail: String,
    code: Option<String>,
    faults: Vec<Value>,
    receipts: Option<Vec<Option<Box<RawValue>>>>,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            title: String::new(),
            status: 500,
            detail: String::new(),
            code: None,
            faults: Vec::new(),
            receipts: None,
        }
    }
}

impl Problem {
    /// Reads the answer to a request.
    pub(super) fn of_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let text_of = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let is_json = text_of(header::CONTENT_TYPE).is_some_and(|kind| kind.contains("json"));
        let document: Option<Document> = is_json.then(|| serde_json::from_slice(body).ok()).flatten();
        let mut problem = match document {
            Some(document) => Self::of_document(document, status),
            None => Self::foreign(status, text_of(header::LOCATION), body),
        };
        problem.retry_after = text_of(header::RETRY_AFTER).and_then(|text| text.parse().ok()).map(Duration::from_secs);
        problem
    }

    /// Reads a document that came within a stream.
    pub(super) fn of_text(text: &str) -> Self {
        let document: Document = serde_json::from_str(text).unwrap_or_else(|_| Document {
            title: "The gateway ended the stream".to_owned(),
            detail: text.to_owned(),
            ..Document::default()
        });
        let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::of_document(document, status)
    }

    fn of_document(document: Document, status: StatusCode) -> Self {
        let Document { title, detail, code, faults, receipts, .. } = document;
        let title = match title.trim_end_matches('.') {
            "" => status.to_string(),
            title => title.to_owned(),
        };
        let faults = faults.iter().map(fault_text).collect();
        Self { status, title, detail, code, faults, receipts, retry_after: None, of_change: false }
    }

    /// An answer that no gateway gives: something else listens there, or stands in between.
    fn foreign(status: StatusCode, location: Option<&str>, body: &[u8]) -> Self {
        let detail = match location {
            Some(location) => format!("it sends elsewhere, to {location}; give that address with --server"),
            None if body.is_empty() => "there is no explanation; is it a gateway that listens there?".to_owned(),
            None => text::excerpt(&String::from_utf8_lossy(body), EXCERPT_CHARACTERS),
        };
        let title = format!("The server answered {status}");
        Self {
            status,
            title,
            detail,
            code: None,
            faults: Vec::new(),
            receipts: None,
            retry_after: None,
            of_change: false,
        }
    }

    /// Whether it is not known if the request had its effect. A timeout without a code comes from a proxy, which knows
    /// nothing of effects.
    pub(super) fn is_outcome_unknown(&self) -> bool {
        self.status == StatusCode::GATEWAY_TIMEOUT
            && self.code.as_deref().map_or(self.of_change, |code| code == "outcome-unknown")
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        )
    }

    /// The lines to print, fit for a terminal.
    pub(super) fn lines(&self) -> Vec<String> {
        let first =
            if self.detail.is_empty() { self.title.clone() } else { format!("{}: {}", self.title, self.detail) };
        let reference = self.code.as_ref().map(|code| format!("see {DOCUMENTATION}#{code}"));
        let lines = std::iter::once(&first).chain(&self.faults).chain(reference.as_ref());
        lines.map(|line| text::printable(line).into_owned()).collect()
    }
}

fn fault_text(fault: &Value) -> String {
    let member = |name| fault.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    match (fault.as_str(), member("attribute"), member("reason")) {
        (Some(text), ..) => text.to_owned(),
        (None, Some(attribute), Some(reason)) => format!("{attribute}: {reason}"),
        (None, None, Some(reason)) => reason.to_owned(),
        _ => fault.to_string(),
    }
}
