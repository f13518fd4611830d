//! The native HTTP API: protocol only. What things mean is the blocks' business.

mod accept;
mod apply;
mod bindings;
mod body;
mod change;
mod cluster;
mod dead_letters;
mod events;
mod handshake;
mod health;
mod keys;
mod log_level;
mod migration;
mod openapi;
mod passports;
mod plan;
mod precondition;
mod publish;
mod query;
mod schedule;
mod subscriptions;
mod time;
mod topics;
mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tidegate_schemas::limits::Limits;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::blocks::apps::Apps;
use crate::blocks::bindings::Bindings;
use crate::blocks::cluster::Cluster;
use crate::blocks::migration::Migration;
use crate::blocks::pubsub::PubSub;
use crate::telemetry::Metrics;
use crate::telemetry::logging::Filter;
use crate::telemetry::traces::Traces;

pub use cluster::Node;
pub use health::{Health, Readiness};

/// What every handler may use.
#[derive(Debug)]
pub struct Api {
    /// Spans of what requests bring about.
    pub traces: Traces,
    /// Publish and subscribe.
    pub pubsub: PubSub,
    /// Queues and exchanges of brokers.
    pub bindings: Bindings,
    /// Which applications are declared.
    pub apps: Apps,
    /// What this process runs on.
    pub node: Node,
    /// The gateways that share the backbone.
    pub cluster: Cluster,
    /// The move to another backbone.
    pub migration: Migration,
    /// Which log lines are written, where that is the gateway's to say.
    pub log_filter: Option<Filter>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Whether requests should come here.
    pub readiness: Readiness,
    /// What an event may be.
    pub limits: Limits,
    /// Time and randomness.
    pub environment: tidegate_backbone::Environment,
}

/// What handlers are given: one count for each request, not one for each part.
type Shared = Arc<Api>;

/// The routes.
pub fn router(api: Api) -> Router {
    let traced = api.traces.is_on();
    let router = Router::from(routes()).with_state(Arc::new(api));
    // Where nothing is traced nothing stands in the way.
    if traced { router.layer(from_fn(within_trace)) } else { router }
}

/// Whatever a request publishes belongs to the trace that its headers name.
async fn within_trace(request: Request, next: Next) -> Response {
    let headers = request.headers().clone();
    Traces::within_request(&headers, || next.run(request)).await
}

/// The routes with their descriptions.
fn routes() -> OpenApiRouter<Shared> {
    openapi::described()
        .routes(routes!(publish::to_default, handshake::of_default))
        .routes(routes!(topics::list))
        .routes(routes!(topics::show, topics::create, topics::delete, publish::to_topic, handshake::of_topic))
        .routes(routes!(events::read))
        .routes(routes!(websocket::connect))
        .routes(routes!(subscriptions::list, subscriptions::write::create))
        .routes(routes!(subscriptions::show, subscriptions::write::replace, subscriptions::write::delete))
        .routes(routes!(subscriptions::pause))
        .routes(routes!(subscriptions::resume))
        .routes(routes!(bindings::list))
        .routes(routes!(bindings::show))
        .routes(routes!(bindings::resume))
        .routes(routes!(dead_letters::list, dead_letters::drop_some))
        .routes(routes!(dead_letters::redrive::redrive))
        .routes(routes!(passports::show))
        .routes(routes!(plan::make))
        .routes(routes!(apply::apply))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(cluster::show))
        .routes(routes!(cluster::apps))
        .routes(routes!(migration::show, migration::start, migration::cancel))
        .routes(routes!(log_level::show, log_level::change, log_level::reset))
        .routes(routes!(openapi::show))
}

#[cfg(test)]
mod tests;
