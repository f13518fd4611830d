use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use tidegate_backbone::consume;

use super::Shared;
use super::openapi::{READ, refusals};
use crate::edge::problem::{Code, Problem};
use crate::telemetry::metrics::{CONTENT_TYPE, Standing};

/// What whoever asks for readiness is told to wait while the broker is away.
const BROKER_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How the backbone is doing. It is asked each time.
#[derive(Clone)]
pub struct Health {
    failed: Question,
    unreachable: Question,
}

type Question = Arc<dyn Fn() -> Option<String> + Send + Sync>;

impl std::fmt::Debug for Health {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Health")
            .field("failed", &self.failed())
            .field("unreachable", &self.unreachable())
            .finish()
    }
}

impl Health {
    /// `failed` tells why the backbone has failed for good, `unreachable` since when and why it is away for now.
    pub fn new(
        failed: impl Fn() -> Option<String> + Send + Sync + 'static,
        unreachable: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { failed: Arc::new(failed), unreachable: Arc::new(unreachable) }
    }

    /// The same, which is also away where `silence` tells since when and what it does not answer or take.
    #[must_use]
    pub fn and(self, silence: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        let Self { failed, unreachable } = self;
        Self { failed, unreachable: Arc::new(move || unreachable().or_else(&silence)) }
    }

    /// Why it has failed for good, where it has.
    pub fn failed(&self) -> Option<String> {
        (self.failed)()
    }

    /// Since when and why it cannot be reached, or what it does not answer or take, where that is so.
    pub fn unreachable(&self) -> Option<String> {
        (self.unreachable)()
    }
}

/// Whether requests should come here: not before everything is open, not while the broker cannot be reached or takes nothing,
/// and no more once shutdown begins or the log has failed.
#[derive(Clone, Debug)]
pub struct Readiness {
    open: Arc<AtomicBool>,
    health: Health,
}

impl Readiness {
    /// Not ready yet.
    pub fn new(health: Health) -> Self {
        Self { open: Arc::new(AtomicBool::new(false)), health }
    }

    /// Sets whether everything is open.
    pub fn set(&self, open: bool) {
        self.open.store(open, Ordering::Release);
    }

    /// Whether requests should come here.
    pub fn is_ready(&self) -> bool {
        self.check().is_ok()
    }

    /// How the backbone is doing.
    pub fn health(&self) -> &Health {
        &self.health
    }

    fn check(&self) -> Result<(), Problem> {
        if let Some(reason) = self.health.failed() {
            return Err(Problem::new(
                Code::Unavailable,
                format!("The log has failed and must be opened anew: {reason}"),
            ));
        }
        if !self.open.load(Ordering::Acquire) {
            return Err(Problem::new(Code::ShuttingDown, "The gateway is starting or shutting down."));
        }
        if let Some(reason) = self.health.unreachable() {
            return Err(Problem::new(Code::Unavailable, format!("The broker does not serve this gateway: {reason}"))
                .with_retry_after(BROKER_RETRY_AFTER));
        }
        Ok(())
    }
}

refusals! {
    Alive: ;
    Ready: READ;
}

/// Ask whether the process is alive
///
/// Answers as long as requests are answered at all.
#[utoipa::path(get, path = "/livez", operation_id = "getLiveness", tag = "Operation",
    responses((status = 200, description = "It is alive.", body = String, example = json!("ok\n")), Alive))]
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Ask whether requests should come here
///
/// Not before everything is open, not while the broker cannot be reached or takes nothing, and no more once shutdown begins
/// or the log has failed.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "Operation",
    responses((status = 200, description = "It is ready.", body = String, example = json!("ok\n")), Ready))]
pub(super) async fn ready(State(api): State<Shared>) -> Result<&'static str, Problem> {
    api.readiness.check().map(|()| "ok\n")
}

/// What the broker may take to tell how far subscriptions are behind, all of them together: Prometheus waits for ten seconds.
const LAG_WAIT: Duration = Duration::from_secs(5);

/// Get the figures
///
/// In the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "Operation",
    responses(
        (status = 200, description = "The figures.", body = String, content_type = "application/openmetrics-text"),
        Alive
    ))]
pub(super) async fn metrics(State(api): State<Shared>) -> Response {
    let now = api.environment.clock.unix_milliseconds();
    let subscriptions = api.pubsub.subscriptions();
    let mut standings = Vec::with_capacity(subscriptions.len());
    let until = tokio::time::Instant::now() + LAG_WAIT;
    for subscription in &subscriptions {
        let Some(status) = api.pubsub.status(subscription) else { continue };
        // A log that cannot be read is told by other figures; these must neither fail with it nor wait for it.
        let lag = tokio::time::timeout_at(until, api.pubsub.lag(subscription)).await;
        let lag = lag.ok().and_then(Result::ok).flatten().unwrap_or_default();
        let oldest = lag.oldest_appended_at.map_or(Duration::ZERO, |at| Duration::from_millis(now.saturating_sub(at)));
        let active = status.standing == consume::Standing::Active;
        let probed = matches!(status.standing, consume::Standing::Unreachable(_) | consume::Standing::BreakerOpen(_));
        let (queued, paused_keys) = (status.queued, status.paused_keys);
        let standing = Standing { active, probed, queued, paused_keys, lag: lag.events, oldest };
        standings.push((&*subscription.spec.name, standing));
    }
    api.metrics.subscriptions_stand(standings);
    let inputs = api.bindings.standings();
    api.metrics.bindings_stand(
        inputs.iter().map(|(name, (state, counts))| (name.as_str(), state.name() == "running", counts.by_outcome())),
    );
    api.metrics.memory(&api.environment.memory);
    let reachable = api.readiness.health().unreachable().is_none();
    api.metrics.cluster(reachable, api.cluster.size(), api.cluster.owned_here(), api.cluster.faults().len());
    api.metrics.gateway_requests(api.cluster.counted());
    let (out, refused) = api.pubsub.flights();
    api.metrics.flights(out, refused);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], api.metrics.render()).into_response()
}
