//! `GET /migration`, `POST /migration`, `DELETE /migration`: the move of everything to another backbone.

use axum::Json;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_backbone::ErrorKind;
use utoipa::ToSchema;

use super::body::read_json;
use super::change::sentence;
use super::openapi::{BODY, READ, WRITE, refusals};
use super::{Shared, time};
use crate::blocks::migration::{MigrateError, Phase, Status};
use crate::edge::problem::{Code, Problem};

/// How the migration stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Migration)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    /// `none`, `copying`, `switching`, `moved`, or `failed`.
    #[schema(examples("copying"))]
    phase: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    details: Option<Details>,
}

/// What is told of a migration that was begun.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Details {
    /// The broker that it goes to, by its name in the resources.
    to: String,
    /// What and where that is.
    #[schema(examples("kafka://127.0.0.1:9092"))]
    target: String,
    /// Whether it is at its end: gateways on the new backbone work.
    done: bool,
    /// Where the gateway serves HTTP that carries it out.
    coordinator: String,
    /// When it was begun (RFC 3339).
    started_at: String,
    /// When the new backbone became the one that counts (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_at: Option<String>,
    /// Events that were copied and read back.
    events: u64,
    /// Events that were not, when it was last looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<u64>,
    /// Events that came to the old backbone after the move and were passed on.
    late: u64,
    /// How often it was tried to switch.
    attempts: u64,
    /// What went wrong last, where that is not over.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Every partition that was begun.
    partitions: Vec<Partition>,
}

/// A partition as it was copied.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MigrationPartition)]
struct Partition {
    /// Its topic.
    topic: String,
    /// Its number.
    partition: u32,
    /// Events that were read back from the new backbone.
    events: u64,
    /// SHA-256 over all of them in their order, the same on both sides.
    sha256: String,
}

/// Where to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = MigrationWanted, examples(json!({"to": "new"})))]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// A broker, by its name in the resources of the gateway.
    to: String,
}

fn document(status: Option<Status>) -> Document {
    let Some(status) = status else { return Document { phase: "none", details: None } };
    Document {
        phase: status.phase.name(),
        details: Some(Details {
            to: status.to.to_string(),
            target: status.target,
            done: status.done,
            coordinator: status.coordinator,
            started_at: time::text(status.started_at),
            moved_at: status.moved_at.map(time::text),
            events: status.partitions.iter().map(|partition| partition.events).sum(),
            behind: status.behind,
            late: status.partitions.iter().map(|partition| partition.late).sum(),
            attempts: status.attempts,
            error: status.error,
            partitions: status
                .partitions
                .into_iter()
                .map(|partition| Partition {
                    topic: partition.topic,
                    partition: partition.partition,
                    events: partition.events,
                    sha256: partition.sha256,
                })
                .collect(),
        }),
    }
}

impl From<MigrateError> for Problem {
    fn from(error: MigrateError) -> Self {
        let detail = sentence(&error.to_string());
        match error {
            MigrateError::Running { phase: Phase::Switching, .. } => {
                Self::new(Code::Conflict, detail).with_retry_after(std::time::Duration::from_secs(1))
            }
            MigrateError::Running { .. }
            | MigrateError::Moved { .. }
            | MigrateError::None
            | MigrateError::Attached { .. } => Self::new(Code::Conflict, detail),
            MigrateError::Broker(error) if *error.kind() == ErrorKind::NotFound => {
                Self::new(Code::InvalidArgument, sentence(error.context()))
            }
            MigrateError::Broker(error) => Self::from(error),
            MigrateError::Commit(error) => Self::from(error),
        }
    }
}

refusals! {
    ShowRefusals: READ;
    StartRefusals: BODY, WRITE, &[Code::InvalidArgument, Code::Conflict];
    CancelRefusals: WRITE, &[Code::Conflict];
}

/// Show how the move to another backbone stands
///
/// As far as this gateway has followed; every gateway of the backbone tells the same a moment later.
#[utoipa::path(get, path = "/migration", operation_id = "getMigration", tag = "Operation",
    responses((status = 200, description = "How it stands.", body = Document), ShowRefusals))]
pub(super) async fn show(State(api): State<Shared>) -> Result<Json<Document>, Problem> {
    Ok(Json(document(api.migration.status()?)))
}

/// Begin to move everything to another backbone
///
/// Topics, subscriptions and where they stand, while publishing goes on. This gateway carries it out. One that has failed goes
/// on where it was.
#[utoipa::path(post, path = "/migration", operation_id = "startMigration", tag = "Operation",
    request_body(content = Wanted, description = "Where to."),
    responses((status = 202, description = "It has begun.", body = Document), StartRefusals))]
pub(super) async fn start(
    State(api): State<Shared>,
    request: Request,
) -> Result<(StatusCode, Json<Document>), Problem> {
    let wanted: Wanted = read_json(request, Code::InvalidArgument, r#"{"to": "new"}"#).await?;
    let status = api.migration.start(&wanted.to).await?;
    Ok((StatusCode::ACCEPTED, Json(document(Some(status)))))
}

/// Give a move to another backbone up
///
/// Before it was made. What was copied stays on the other backbone.
#[utoipa::path(delete, path = "/migration", operation_id = "cancelMigration", tag = "Operation",
    responses((status = 204, description = "It was given up."), CancelRefusals))]
pub(super) async fn cancel(State(api): State<Shared>) -> Result<StatusCode, Problem> {
    api.migration.cancel().await?;
    Ok(StatusCode::NO_CONTENT)
}
