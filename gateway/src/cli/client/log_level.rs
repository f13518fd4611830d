//! `log-level`: which log lines the gateway writes.

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::Call;
use super::failure::Failure;
use super::text::printable;
use super::{Context, json as documents};
use crate::cli::arguments::LogLevel;

#[derive(Debug, Deserialize)]
struct Document {
    filter: String,
    configured: String,
}

/// Carries out `log-level`.
pub(super) async fn run(context: &mut Context<'_>, arguments: &LogLevel) -> Result<(), Failure> {
    let path = &["log-level"];
    let call = match &arguments.filter {
        Some(filter) => Call::new(Method::PUT, path).body("application/json", json!({ "filter": filter }).to_string()),
        None if arguments.reset => Call::new(Method::DELETE, path),
        None => Call::new(Method::GET, path),
    };
    let answer = context.api.call(call).await?;
    if context.wants_json() {
        return context.console.line(&documents::one_line(&answer.body));
    }
    let document: Document = documents::read(&answer.body)?;
    let filter = printable(&document.filter);
    if document.filter == document.configured {
        return context.console.line(&filter);
    }
    context.console.line(&format!("{filter} (began with {})", printable(&document.configured)))?;
    context.suggest("log-level --reset");
    Ok(())
}
