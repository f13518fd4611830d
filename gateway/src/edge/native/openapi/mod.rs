//! The description of the API, made from the routes that there are.
//!
//! A handler carries its description as `#[utoipa::path]`, and a route is made from described handlers only
//! (`routes!`; clippy refuses what adds a route without). `docs/openapi.json` is the same document, written anew by
//! `TIDEGATE_REWRITE=1` with the tests of this module.

mod refusals;
pub(super) mod schemas;

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, ContactBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;

use super::Shared;
use crate::edge::problem;
use utoipa::{PartialSchema as _, ToSchema as _};

pub(super) use refusals::{BODY, READ, WRITE, refusals, refused_with};

refusals! {
    Refusals: ;
}

/// The groups of operations, with what each is about.
const TAGS: &[(&str, &str)] = &[
    ("Events", "Publish events and read them back."),
    ("Topics", "Named, partitioned, durable, append-only logs of events."),
    ("Subscriptions", "Which events go where: the CloudEvents Subscriptions API."),
    ("Bindings", "Queues and exchanges of brokers as sinks and as sources."),
    ("Dead letters", "Events that could not be delivered, with what happened to them."),
    ("Operation", "How the gateway does, and what it offers."),
];

const ABOUT: &str = "Tidegate's native API. Errors are `application/problem+json` (RFC 9457) with a stable `code`; \
    `x-codes` lists those of a status, and docs/errors.md says what to do. An unknown path is answered with 404, a method \
    that a path does not have with 405 and `Allow`; `HEAD` is answered where `GET` is. Unknown query parameters are \
    refused. A path takes a topic's name as one percent-encoded segment.";

/// A router without routes, for described ones.
pub(super) fn described() -> OpenApiRouter<Shared> {
    let info = InfoBuilder::new()
        .title("Tidegate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .contact(Some(ContactBuilder::new().name(Some("Tidegate")).url(Some(env!("CARGO_PKG_REPOSITORY"))).build()))
        .license(Some(
            LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).identifier(Some(env!("CARGO_PKG_LICENSE"))).build(),
        ));
    let tags = TAGS.iter().map(|(name, about)| TagBuilder::new().name(*name).description(Some(*about)).build());
    let problem = problem::Document::schema();
    let mut nested = Vec::new();
    problem::Document::schemas(&mut nested);
    let components = ComponentsBuilder::new().schema(problem::Document::name(), problem).schemas_from_iter(nested);
    OpenApiRouter::with_openapi(
        OpenApiBuilder::new().info(info.build()).tags(Some(tags)).components(Some(components.build())).build(),
    )
}

/// The document for the routes of [`super::routes`].
pub(super) fn document() -> OpenApi {
    super::routes().into_openapi()
}

/// The document as it is served: written once, at the first request.
static WRITTEN: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(write(&document())));

/// The document as text, with a line for each member so that changes of the committed one can be read.
fn write(document: &OpenApi) -> String {
    let mut text = document.to_pretty_json().expect("the document is made of strings, numbers and maps");
    text.push('\n');
    text
}

/// Get the description of this API
///
/// The OpenAPI 3.1 document that you are reading.
#[utoipa::path(get, path = "/openapi.json", operation_id = "getOpenApi", tag = "Operation",
    responses((status = 200, description = "The document.", content_type = "application/json"), Refusals))]
pub(super) async fn show() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], WRITTEN.clone()).into_response()
}

#[cfg(test)]
mod tests;
