//! Errors as clients see them: `application/problem+json` (RFC 9457) with a stable [`Code`].
//!
//! A handler returns a [`Problem`]. Beside the document itself, the response carries the problem as an extension, so that
//! the listener can say the same in the words of another protocol (`listener::Shape`) without reading it back.

mod code;
mod mapping;

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;
use tidegate_schemas::{Fault, Faults};
use utoipa::ToSchema;

pub use code::Code;

/// What every code's page begins with; the code is the fragment.
const DOCUMENTATION: &str = "https://tidegate.dev/errors#";

/// The media type of the document.
pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Why a request was refused or failed.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    faults: Vec<Fault>,
    receipts: Option<Vec<serde_json::Value>>,
    retry_after: Option<Duration>,
    allow: Option<HeaderValue>,
}

/// The document of RFC 9457.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// The page of the code.
    r#type: String,
    /// What the code means, the same for every occurrence.
    title: &'static str,
    status: u16,
    /// A name that never changes its meaning.
    #[schema(examples("invalid-event"))]
    code: &'static str,
    /// What is wrong with this request, and how to mend it.
    detail: &'a str,
    /// Every fault of an event or a resource.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<FaultDocument<'a>>,
    /// What became of each event of a batch: its receipt, or `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    receipts: Option<&'a [serde_json::Value]>,
}

/// One fault.
#[derive(Serialize, ToSchema)]
#[schema(as = Fault)]
struct FaultDocument<'a> {
    /// Which attribute or field.
    attribute: &'a str,
    /// What is wrong with it.
    reason: &'a str,
}

impl Problem {
    /// A problem; `detail` says what is wrong with this request and how to mend it.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), faults: Vec::new(), receipts: None, retry_after: None, allow: None }
    }

    /// Adds the faults that were found, all of them.
    pub fn with_faults(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults.extend(faults);
        self
    }

    /// Adds what became of each event of a batch: its receipt, or `null` where there is none.
    pub fn with_receipts(mut self, receipts: Vec<serde_json::Value>) -> Self {
        self.receipts = Some(receipts);
        self
    }

    /// Says when another try may help (`Retry-After`, in whole seconds, rounded up, at least one).
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Names the methods that the path has (`Allow`).
    pub fn with_allow(mut self, allow: HeaderValue) -> Self {
        self.allow = Some(allow);
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What is wrong with this request.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The faults that were found.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// What the client is to wait before it tries again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The headers that go with the problem in every protocol: `Retry-After`, `Allow`, and what a path that speaks WebSocket
    /// says of itself (RFC 6455 section 4.4, RFC 9110 section 15.5.22).
    pub fn append_headers(&self, headers: &mut http::HeaderMap) {
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(allow) = &self.allow {
            headers.insert(header::ALLOW, allow.clone());
        }
        if self.code == Code::UpgradeRequired {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
    }

    /// The document of RFC 9457.
    pub fn document(&self) -> Vec<u8> {
        let document = Document {
            r#type: format!("{DOCUMENTATION}{}", self.code.name()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            code: self.code.name(),
            detail: &self.detail,
            faults: self
                .faults
                .iter()
                .map(|fault| FaultDocument { attribute: &fault.attribute, reason: &fault.reason })
                .collect(),
            receipts: self.receipts.as_deref(),
        };
        serde_json::to_vec(&document).expect("strings and JSON values always serialize")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.document()));
        *response.status_mut() = self.code.status();
        response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
        self.append_headers(response.headers_mut());
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Faults> for Problem {
    fn from(faults: Faults) -> Self {
        Self::new(Code::InvalidEvent, "The event breaks rules of CloudEvents 1.0; every fault is listed.")
            .with_faults(faults.0)
    }
}

#[cfg(test)]
mod tests;
