//! The native HTTP API: protocol only. What things mean is the blocks' business.

mod body;
mod change;
mod dead_letters;
mod events;
mod health;
mod openapi;
mod publish;
mod query;
mod subscriptions;
mod time;
mod topics;

use std::sync::Arc;

use axum::Router;
use tidegate_schemas::limits::Limits;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::blocks::pubsub::PubSub;
use crate::telemetry::Metrics;

pub use health::Readiness;

/// What every handler may use.
#[derive(Debug)]
pub struct Api {
    /// Publish and subscribe.
    pub pubsub: PubSub,
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
    Router::from(routes()).with_state(Arc::new(api))
}

/// The routes with their descriptions.
fn routes() -> OpenApiRouter<Shared> {
    openapi::described()
        .routes(routes!(publish::to_default))
        .routes(routes!(topics::list))
        .routes(routes!(topics::show, topics::create, topics::delete, publish::to_topic))
        .routes(routes!(events::read))
        .routes(routes!(subscriptions::list))
        .routes(routes!(subscriptions::show))
        .routes(routes!(subscriptions::pause))
        .routes(routes!(subscriptions::resume))
        .routes(routes!(dead_letters::list, dead_letters::drop_some))
        .routes(routes!(dead_letters::redrive))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::show))
}

#[cfg(test)]
mod tests;
