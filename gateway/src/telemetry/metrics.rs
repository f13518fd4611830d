//! Figures in the OpenMetrics text format. Every name is a constant of [`names`]; every label has a bounded number of values.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tidegate_backbone::budget::{Account, Budget};
use tidegate_schemas::limits::METRICS_SUBSCRIPTIONS;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The label value that stands for all beyond a bound.
pub const OTHER: &str = "other";

/// The names of all figures, as they are exposed. Counters gain the suffix `_total`.
pub mod names {
    /// Answers, by route template, method and status class.
    pub const HTTP_REQUESTS: &str = "tidegate_http_requests";
    /// Open connections.
    pub const CONNECTIONS: &str = "tidegate_connections";
    /// Connections that were refused or cut, by reason.
    pub const CONNECTIONS_REFUSED: &str = "tidegate_connections_refused";
    /// Events that clients published, by outcome.
    pub const PUBLISHES: &str = "tidegate_publishes";
    /// Delivery attempts, by subscription and outcome.
    pub const DELIVERIES: &str = "tidegate_deliveries";
    /// Events that wait in memory for delivery, by subscription.
    pub const QUEUE_EVENTS: &str = "tidegate_queue_events";
    /// Time from an append to its acknowledgement.
    pub const APPEND_SECONDS: &str = "tidegate_append_seconds";
    /// Records that one commit of the embedded log carries.
    pub const COMMIT_RECORDS: &str = "tidegate_commit_records";
    /// Bytes that one commit of the embedded log carries.
    pub const COMMIT_BYTES: &str = "tidegate_commit_bytes";
    /// Events that were dropped because they were delivered before.
    pub const DUPLICATES_DROPPED: &str = "tidegate_duplicates_dropped";

    /// Memory that is held, by account of the budget.
    pub const MEMORY_BYTES: &str = "tidegate_memory_bytes";
    /// The budget of memory.
    pub const MEMORY_LIMIT_BYTES: &str = "tidegate_memory_limit_bytes";
    /// How often something was refused for want of memory, by account of the budget.
    pub const MEMORY_REFUSED: &str = "tidegate_memory_refused";
    /// Events on their way to the log.
    pub const PUBLISHES_IN_FLIGHT: &str = "tidegate_publishes_in_flight";
    /// How often publishing was refused because too many events were on their way.
    pub const PUBLISHES_REFUSED: &str = "tidegate_publishes_refused";

    /// All of them.
    pub const ALL: &[&str] = &[
        HTTP_REQUESTS,
        CONNECTIONS,
        CONNECTIONS_REFUSED,
        PUBLISHES,
        DELIVERIES,
        QUEUE_EVENTS,
        APPEND_SECONDS,
        COMMIT_RECORDS,
        COMMIT_BYTES,
        DUPLICATES_DROPPED,
        MEMORY_BYTES,
        MEMORY_LIMIT_BYTES,
        MEMORY_REFUSED,
        PUBLISHES_IN_FLIGHT,
        PUBLISHES_REFUSED,
    ];
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccountLabels {
    account: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SubscriptionLabels {
    subscription: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    subscription: String,
    outcome: &'static str,
}

/// The figures of one gateway. Handed down to whatever observes something; one method for each observation.
pub struct Metrics {
    registry: Registry,
    http_requests: Family<RequestLabels, Counter>,
    connections: Gauge,
    connections_refused: Family<ReasonLabels, Counter>,
    publishes: Family<OutcomeLabels, Counter>,
    deliveries: Family<DeliveryLabels, Counter>,
    queue_events: Family<SubscriptionLabels, Gauge>,
    append_seconds: Histogram,
    commit_records: Histogram,
    commit_bytes: Histogram,
    duplicates_dropped: Counter,
    memory_bytes: Family<AccountLabels, Gauge>,
    memory_limit_bytes: Gauge,
    memory_refused: Family<AccountLabels, Counter>,
    publishes_in_flight: Gauge,
    publishes_refused: Counter,
    subscriptions: Mutex<HashSet<String>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All figures at zero.
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::default(),
            http_requests: Family::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            publishes: Family::default(),
            deliveries: Family::default(),
            queue_events: Family::default(),
            // 0.25 ms to 8 s: an fdatasync takes milliseconds, and a publish is given up after seconds.
            append_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            commit_records: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            commit_bytes: Histogram::new(exponential_buckets(1024.0, 4.0, 8)),
            duplicates_dropped: Counter::default(),
            memory_bytes: Family::default(),
            memory_limit_bytes: Gauge::default(),
            memory_refused: Family::default(),
            publishes_in_flight: Gauge::default(),
            publishes_refused: Counter::default(),
            subscriptions: Mutex::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(names::HTTP_REQUESTS, "Answers by route and status class", self.http_requests.clone());
        registry.register(names::CONNECTIONS, "Open connections", self.connections.clone());
        let refused = self.connections_refused.clone();
        registry.register(names::CONNECTIONS_REFUSED, "Connections refused or cut by reason", refused);
        registry.register(names::PUBLISHES, "Published events by outcome", self.publishes.clone());
        registry.register(names::DELIVERIES, "Delivery attempts by outcome", self.deliveries.clone());
        registry.register(names::QUEUE_EVENTS, "Events waiting in memory for delivery", self.queue_events.clone());
        let append_seconds = self.append_seconds.clone();
        registry.register(names::APPEND_SECONDS, "Time from an append to its acknowledgement", append_seconds);
        registry.register(names::COMMIT_RECORDS, "Records of one commit", self.commit_records.clone());
        registry.register(names::COMMIT_BYTES, "Bytes of one commit", self.commit_bytes.clone());
        let duplicates = self.duplicates_dropped.clone();
        registry.register(names::DUPLICATES_DROPPED, "Events dropped as delivered before", duplicates);
        self.register_bounds();
    }

    fn register_bounds(&mut self) {
        let registry = &mut self.registry;
        registry.register(names::MEMORY_BYTES, "Memory held by account", self.memory_bytes.clone());
        registry.register(names::MEMORY_LIMIT_BYTES, "The budget of memory", self.memory_limit_bytes.clone());
        registry.register(names::MEMORY_REFUSED, "Refusals for want of memory", self.memory_refused.clone());
        let in_flight = self.publishes_in_flight.clone();
        registry.register(names::PUBLISHES_IN_FLIGHT, "Events on their way to the log", in_flight);
        let refused = self.publishes_refused.clone();
        registry.register(names::PUBLISHES_REFUSED, "Publishes refused for the number on their way", refused);
    }

    /// The text that `/metrics` answers with, of type [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut rendered = String::new();
        text::encode(&mut rendered, &self.registry).expect("writing to a string does not fail");
        rendered
    }

    /// An answer was given. `route` is the template that matched, never the path itself.
    pub fn http_request(&self, route: &str, method: &http::Method, status: http::StatusCode) {
        let labels =
            RequestLabels { route: route.to_owned(), method: method_label(method), status: status_class(status) };
        self.http_requests.get_or_create(&labels).inc();
    }

    /// A connection was opened.
    pub fn connection_opened(&self) {
        self.connections.inc();
    }

    /// A connection was closed.
    pub fn connection_closed(&self) {
        self.connections.dec();
    }

    /// A connection was refused or cut.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// How many connections were refused or cut for this reason.
    pub fn connections_refused(&self, reason: &'static str) -> u64 {
        self.connections_refused.get(&ReasonLabels { reason }).map_or(0, |counter| counter.get())
    }

    /// An event was published, or not.
    pub fn published(&self, outcome: &'static str) {
        self.publishes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// An attempt of a delivery ended.
    pub fn delivered(&self, subscription: &str, outcome: &'static str) {
        let labels = DeliveryLabels { subscription: self.subscription(subscription), outcome };
        self.deliveries.get_or_create(&labels).inc();
    }

    /// So many events of the subscription wait in memory.
    pub fn queue_events(&self, subscription: &str, events: usize) {
        let labels = SubscriptionLabels { subscription: self.subscription(subscription) };
        self.queue_events.get_or_create(&labels).set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    /// An append was acknowledged after this time.
    pub fn appended(&self, elapsed: Duration) {
        self.append_seconds.observe(elapsed.as_secs_f64());
    }

    /// The embedded log made a commit.
    pub fn committed(&self, records: usize, bytes: usize) {
        self.commit_records.observe(records as f64);
        self.commit_bytes.observe(bytes as f64);
    }

    /// An event was dropped because it was delivered before.
    pub fn duplicate_dropped(&self) {
        self.duplicates_dropped.inc();
    }

    /// How the budget of memory stands.
    pub fn memory(&self, budget: &Budget) {
        let gauge = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.memory_limit_bytes.set(gauge(budget.limit_bytes()));
        for account in Account::ALL {
            let (labels, standing) = (AccountLabels { account: account.name() }, budget.standing(account));
            self.memory_bytes.get_or_create(&labels).set(gauge(standing.used_bytes));
            // The budget counts; this is where it is shown.
            self.memory_refused.get_or_create(&labels).inner().store(standing.refused, Ordering::Relaxed);
        }
    }

    /// Events on their way to the log, and how often publishing was refused for their number.
    pub fn flights(&self, out: usize, refused: u64) {
        self.publishes_in_flight.set(i64::try_from(out).unwrap_or(i64::MAX));
        self.publishes_refused.inner().store(refused, Ordering::Relaxed);
    }

    /// The subscription's own label value, or [`OTHER`] where too many have one.
    fn subscription(&self, name: &str) -> String {
        let mut known = self.subscriptions.lock();
        if known.contains(name) {
            return name.to_owned();
        }
        if known.len() >= METRICS_SUBSCRIPTIONS {
            return OTHER.to_owned();
        }
        known.insert(name.to_owned());
        name.to_owned()
    }
}

fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        // A method is any token, so a client could make up one for each request.
        _ => OTHER,
    }
}

fn status_class(status: http::StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_rendered_and_the_text_ends_as_the_format_demands() {
        let metrics = Metrics::new();
        metrics.http_request("/topics/{topic}", &http::Method::POST, http::StatusCode::ACCEPTED);
        metrics.connection_opened();
        metrics.connection_refused("total");
        metrics.published("accepted");
        metrics.delivered("large-orders", "done");
        metrics.queue_events("large-orders", 3);
        metrics.appended(Duration::from_millis(4));
        metrics.committed(12, 3_000);
        metrics.duplicate_dropped();
        metrics.memory(&Budget::new(1_600));
        metrics.flights(1, 2);
        let text = metrics.render();
        for name in names::ALL {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing:\n{text}");
        }
        let line = r#"tidegate_http_requests_total{route="/topics/{topic}",method="POST",status="2xx"} 1"#;
        assert!(text.contains(line), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn labels_do_not_grow_with_what_clients_make_up() {
        let metrics = Metrics::new();
        for index in 0..METRICS_SUBSCRIPTIONS + 50 {
            metrics.delivered(&format!("subscription-{index}"), "done");
            let method = http::Method::from_bytes(format!("M{index}").as_bytes()).unwrap();
            metrics.http_request("none", &method, http::StatusCode::NOT_FOUND);
        }
        let text = metrics.render();
        let lines = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
        assert_eq!(lines("tidegate_deliveries_total{"), METRICS_SUBSCRIPTIONS + 1);
        assert_eq!(lines("tidegate_http_requests_total{"), 1);
        assert!(text.contains(r#"tidegate_deliveries_total{subscription="other",outcome="done"} 50"#));
    }
}
