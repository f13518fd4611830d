//! What an operation may be refused with, as responses of the document: one for each status, with the codes that it may
//! carry. The texts are those of the table of codes, so that the document cannot say something else.

use std::collections::BTreeMap;

use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::edge::problem::{Code, Problem};

/// What stands before every operation: the listener and the guard.
const ALWAYS: &[Code] = &[
    Code::MalformedRequest,
    Code::AmbiguousFraming,
    Code::AmbiguousPath,
    Code::InvalidHost,
    Code::ForeignHost,
    Code::ForeignOrigin,
    Code::HeadersTooLarge,
    Code::Internal,
    Code::TooManyConnections,
    Code::ShuttingDown,
];

/// Where a body is read.
pub(in crate::edge::native) const BODY: &[Code] = &[Code::BodyTooSlow, Code::BodyTooLarge];

/// Where the log or the slot is read.
pub(in crate::edge::native) const READ: &[Code] =
    &[Code::Overloaded, Code::DataLoss, Code::BrokerRefused, Code::BrokerMisconfigured, Code::Unavailable];

/// Where something is written to the log or the slot.
pub(in crate::edge::native) const WRITE: &[Code] = &[
    Code::Conflict,
    Code::BodyTooLarge,
    Code::Overloaded,
    Code::DataLoss,
    Code::BrokerRefused,
    Code::BrokerMisconfigured,
    Code::Unavailable,
    Code::OutcomeUnknown,
    Code::StorageFull,
];

/// Names what an operation may be refused with, for the `responses` of its `#[utoipa::path]`: groups of codes, to which
/// those of every operation are added.
macro_rules! refusals {
    ($($name:ident: $($group:expr),* ;)+) => { $(
        #[doc = "What the operation may be refused with."]
        struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<
                String,
                utoipa::openapi::RefOr<utoipa::openapi::response::Response>,
            > {
                crate::edge::native::openapi::refused_with(&[$($group),*])
            }
        }
    )+ };
}
pub(in crate::edge::native) use refusals;

/// The responses for these codes and those of every operation.
pub(in crate::edge::native) fn refused_with(groups: &[&[Code]]) -> BTreeMap<String, RefOr<Response>> {
    let mut statuses: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in groups.iter().copied().chain([ALWAYS]).flatten().copied() {
        let codes = statuses.entry(code.status().as_u16()).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    statuses.into_iter().map(|(status, codes)| (status.to_string(), RefOr::T(response(&codes)))).collect()
}

fn response(codes: &[Code]) -> Response {
    let lines = codes.iter().map(|code| format!("- `{}`: {}", code.name(), code.title())).collect::<Vec<_>>();
    let example = codes.first().map(|code| Problem::new(*code, code.title()).document());
    let example = example.and_then(|document| serde_json::from_slice(&document).ok());
    let names = codes.iter().map(|code| code.name()).collect::<Vec<_>>();
    ResponseBuilder::new()
        .description(lines.join("\n"))
        .content(
            "application/problem+json",
            ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).example(example).build(),
        )
        .extensions(Some(ExtensionsBuilder::new().add("x-codes", names).build()))
        .build()
}
