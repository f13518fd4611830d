//! `GET /log-level`, `PUT /log-level`, `DELETE /log-level`: which log lines are written, changed while the process runs and
//! forgotten when it ends.

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::body::read_json;
use super::change::sentence;
use super::openapi::{BODY, refusals};
use super::{Api, Shared};
use crate::edge::problem::{Code, Problem};
use crate::telemetry::logging::Filter;

/// What is logged.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogLevel, examples(json!({"filter": "warn,tidegate=debug", "configured": "info"})))]
pub(super) struct Document {
    /// The filter in force: a level, or directives by module.
    filter: String,
    /// The one that the process began with.
    configured: String,
}

/// What is to be logged.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = LogLevelWanted, examples(json!({"filter": "warn,tidegate=debug"})))]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// A level, or directives by module.
    filter: String,
}

fn filter(api: &Api) -> Result<&Filter, Problem> {
    api.log_filter.as_ref().ok_or_else(|| {
        Problem::new(Code::NotImplemented, "The log of this process belongs to the program that runs the gateway.")
    })
}

fn document(filter: &Filter) -> Json<Document> {
    Json(Document { filter: filter.current(), configured: filter.configured().to_owned() })
}

refusals! {
    ShowRefusals: &[Code::NotImplemented];
    ChangeRefusals: BODY, &[Code::InvalidArgument, Code::NotImplemented];
}

/// Show what is logged
///
/// The filter in force, and the one that the process began with.
#[utoipa::path(get, path = "/log-level", operation_id = "getLogLevel", tag = "Operation",
    responses((status = 200, description = "What is logged.", body = Document), ShowRefusals))]
pub(super) async fn show(State(api): State<Shared>) -> Result<Json<Document>, Problem> {
    Ok(document(filter(&api)?))
}

/// Change what is logged
///
/// At once, and until the process ends.
#[utoipa::path(put, path = "/log-level", operation_id = "setLogLevel", tag = "Operation",
    request_body(content = Wanted, description = "The filter."),
    responses((status = 200, description = "What is logged now.", body = Document), ChangeRefusals))]
pub(super) async fn change(State(api): State<Shared>, request: Request) -> Result<Json<Document>, Problem> {
    let wanted: Wanted = read_json(request, Code::InvalidArgument, r#"{"filter": "warn,tidegate=debug"}"#).await?;
    set(&api, &wanted.filter)
}

/// Log what the process began with
///
/// Undoes every change of the filter.
#[utoipa::path(delete, path = "/log-level", operation_id = "resetLogLevel", tag = "Operation",
    responses((status = 200, description = "What is logged now.", body = Document), ShowRefusals))]
pub(super) async fn reset(State(api): State<Shared>) -> Result<Json<Document>, Problem> {
    let configured = filter(&api)?.configured().to_owned();
    set(&api, &configured)
}

fn set(api: &Api, wanted: &str) -> Result<Json<Document>, Problem> {
    let filter = filter(api)?;
    let before = filter.current();
    filter
        .set(wanted)
        .map_err(|error| Problem::new(Code::InvalidArgument, sentence(&format!("the log filter {error}"))))?;
    info!(filter = filter.current(), before, "what is logged was changed");
    Ok(document(filter))
}
