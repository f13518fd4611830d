//! The native HTTP API: protocol only. What things mean is the blocks' business.

mod body;
mod change;
mod dead_letters;
mod events;
mod health;
mod publish;
mod query;
mod subscriptions;
mod time;
mod topics;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tidegate_schemas::limits::Limits;

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
    Router::new()
        .route("/events", post(publish::to_default))
        .route("/topics", get(topics::list))
        .route("/topics/{topic}", get(topics::show).put(topics::create).delete(topics::delete).post(publish::to_topic))
        .route("/topics/{topic}/events", get(events::read))
        .route("/subscriptions", get(subscriptions::list))
        .route("/subscriptions/{id}", get(subscriptions::show))
        .route("/subscriptions/{id}/pause", post(subscriptions::pause))
        .route("/subscriptions/{id}/resume", post(subscriptions::resume))
        .route("/subscriptions/{id}/dead-letters", get(dead_letters::list).delete(dead_letters::drop_some))
        .route("/subscriptions/{id}/dead-letters/redrive", post(dead_letters::redrive))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .with_state(Arc::new(api))
}
