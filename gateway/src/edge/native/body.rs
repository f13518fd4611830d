//! JSON bodies of requests, which may be left out where everything in them has a default.

use axum::body::Body;
use axum::extract::Request;
use serde::de::DeserializeOwned;

use crate::edge::listener::read_body;
use crate::edge::problem::{Code, Problem};

/// Reads what a request asks for; `example` completes the sentence that tells how it looks.
pub(super) async fn read_json<T: DeserializeOwned + Default>(
    request: Request,
    code: Code,
    example: &str,
) -> Result<T, Problem> {
    let body = read_body(Body::new(request.into_body())).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body)
        .map_err(|error| Problem::new(code, format!("The body cannot be read: {error}. It looks like {example}.")))
}
