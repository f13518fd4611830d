//! `POST /apply`: resources as files have them, brought into force one by one.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use serde::Serialize;
use tidegate_resources::{self as resources, Diagnostic, Severity};
use tidegate_schemas::Fault;
use utoipa::ToSchema;

use super::Shared;
use super::openapi::{BODY, WRITE, refusals};
use super::query::Query;
use crate::blocks::pubsub::{Applied, Outcome};
use crate::edge::listener::read_body;
use crate::edge::problem::{Code, Problem};

/// What became of the resources, in the order in which they were taken up: topics first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Whether nothing was changed, because a dry run was asked for.
    dry_run: bool,
    results: Vec<Entry>,
}

/// What became of one resource.
#[derive(Serialize, ToSchema)]
#[schema(as = AppliedResource)]
struct Entry {
    /// `Topic` or `Subscription`.
    kind: &'static str,
    name: String,
    /// `created`, `changed`, `unchanged` or `refused`.
    outcome: &'static str,
    /// Why it was refused: the code of the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// Why it was refused, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

refusals! {
    Refusals: BODY, WRITE, &[Code::InvalidArgument, Code::InvalidResource, Code::NotFound];
}

/// Apply resources
///
/// Takes `Topic` and `Subscription` resources as files have them, any number of documents of YAML or JSON. Faults are told
/// all at once, each with its line and column, and then nothing is changed. Otherwise each resource is created or changed
/// by itself, whole or not at all, topics first. Resources that are not named stay as they are. `${env:NAME}` is not
/// filled in: a request sees no variables of the gateway.
#[utoipa::path(post, path = "/apply", operation_id = "applyResources", tag = "Operation",
    params(("dryRun" = Option<bool>, Query, description = "Changes nothing, and says what would be.")),
    request_body(content = String, content_type = "application/yaml", description = "The documents.", example = json!(
        "apiVersion: tidegate.dev/v1\nkind: Topic\nmetadata: {name: orders}\nspec: {partitions: 4}\n"
    )),
    responses(
        (status = 200, description = "What became of each; some may have been refused.", body = Report, example = json!(
            {"dryRun": false, "results": [{"kind": "Topic", "name": "orders", "outcome": "created"}]}
        )),
        Refusals
    ))]
pub(super) async fn apply(State(api): State<Shared>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["dryRun"])?;
    let dry_run = query.flag("dryRun")?;
    let body = read_body(Body::new(body)).await?;
    let text = std::str::from_utf8(&body)
        .map_err(|_| Problem::new(Code::InvalidResource, "The body is not UTF-8; send the documents as UTF-8."))?;
    let read =
        resources::parse_all(&[("request".into(), text)], &|_| None).map_err(|diagnostics| faulty(&diagnostics))?;
    if !read.apps.is_empty() {
        let detail = "Apps are declared in files of the gateway only; remove the documents of the kind App.";
        return Err(Problem::new(Code::InvalidResource, detail));
    }
    if read.topics.is_empty() && read.subscriptions.is_empty() {
        let detail = "The body holds no resource; send documents of the kinds Topic and Subscription.";
        return Err(Problem::new(Code::InvalidResource, detail));
    }
    let results = api.pubsub.put_resources(&read, dry_run).await.into_iter().map(entry).collect();
    Ok(Json(Report { dry_run, results }).into_response())
}

fn entry(applied: Applied) -> Entry {
    let Applied { kind, name, outcome } = applied;
    let (outcome, problem) = match outcome {
        Ok(Outcome::Created) => ("created", None),
        Ok(Outcome::Changed) => ("changed", None),
        Ok(Outcome::Unchanged) => ("unchanged", None),
        Err(error) => ("refused", Some(Problem::from(error))),
    };
    Entry {
        kind,
        name,
        outcome,
        code: problem.as_ref().map(|problem| problem.code().name()),
        detail: problem.map(|problem| problem.detail().to_owned()),
    }
}

fn faulty(diagnostics: &[Diagnostic]) -> Problem {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    let faults = errors.map(|diagnostic| Fault {
        attribute: diagnostic.place.map_or_else(ByteString::new, |place| ByteString::from(place.to_string())),
        reason: format!("{}; {}", diagnostic.what, diagnostic.mend),
    });
    Problem::new(
        Code::InvalidResource,
        "Nothing was changed: the documents have faults. Each is listed with its line and column.",
    )
    .with_faults(faults)
}
