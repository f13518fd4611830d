//! What delivery tells, as figures and, for a person who watches, as log lines.

use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::consume::{Ending, Observer, Outcome, Reason};
use tidegate_backbone::{Environment, Position};
use tidegate_schemas::Event;
use tracing::{debug, info};

use crate::telemetry::traces::{Routed, Traces};
use crate::telemetry::{Metrics, Throttle};

/// How often a development server tells the same kind of thing.
const LINE_INTERVAL: Duration = Duration::from_millis(200);

/// Turns what delivery tells into figures and, for a person who watches, into log lines.
#[derive(Debug)]
pub(super) struct Watch {
    metrics: Arc<Metrics>,
    traces: Traces,
    development: bool,
    environment: Environment,
    /// A sink that fails every event must not fill the screen.
    failures: Throttle,
    duplicates: Throttle,
}

impl Watch {
    pub(super) fn new(metrics: Arc<Metrics>, traces: Traces, development: bool, environment: Environment) -> Self {
        let (failures, duplicates) = (Throttle::new(LINE_INTERVAL), Throttle::new(LINE_INTERVAL));
        Self { metrics, traces, development, environment, failures, duplicates }
    }
}

impl Observer for Watch {
    fn duplicate(&self, topic: &str, partition: u32, position: Position, event: &Event) {
        self.metrics.duplicate_dropped();
        if self.development
            && let Some(untold) = self.duplicates.pass(self.environment.clock.since_boot())
        {
            info!(topic, partition, %position, id = %event.id(), source = %event.source(), untold,
                "a duplicate was dropped: an event of the same source and id came shortly before");
        }
    }

    fn routed(&self, (topic, partition): (&str, u32), appended_at: u64, event: &Event, subscriptions: usize) {
        self.traces.route(&Routed { event, topic, partition, appended_at, subscriptions });
    }

    fn dead_letter(&self, _subscription: &str, reason: Reason) {
        self.metrics.dead_lettered(reason.name());
    }

    fn trimmed(&self, subscription: &str, _topic: &str, _partition: u32, count: u64) {
        self.metrics.events_trimmed(subscription, count);
    }

    fn lease_expired(&self, slot: u32) {
        self.metrics.lease_expired();
        debug!(slot, "the lease on a slot has run out; its deliveries wait until it is renewed");
    }

    fn settled(&self, outcome: &Outcome, appended_at: u64) {
        let ending = match outcome.ending {
            Ending::Done => "done",
            Ending::Retry => "retry",
            Ending::Dead => "dead",
            Ending::Unreachable => "unreachable",
            Ending::Paused => "paused",
            Ending::Probe => "probe",
            Ending::KeyPaused => "key-paused",
            Ending::Dropped => "dropped",
            Ending::Expired => "expired",
            Ending::Trimmed => "trimmed",
        };
        self.metrics.delivered(&outcome.subscription, ending, Duration::from_millis(outcome.took));
        if outcome.ending == Ending::Done {
            let age = Duration::from_millis(outcome.at.saturating_sub(appended_at));
            self.metrics.delivered_at_age(&outcome.subscription, age);
        }
        if self.development
            && outcome.ending != Ending::Done
            && let Some(untold) = self.failures.pass(self.environment.clock.since_boot())
        {
            info!(
                subscription = outcome.subscription,
                id = outcome.id,
                attempt = outcome.attempt,
                status = outcome.status,
                ending,
                detail = outcome.detail,
                untold,
                "a delivery did not succeed"
            );
        }
    }
}
