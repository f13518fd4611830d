//! Figures in the OpenMetrics text format. Every figure stands in the table of [`names`]; every label has a bounded number
//! of values.

pub mod names;
mod process;
#[cfg(test)]
mod tests;

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
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use tidegate_backbone::budget::{Account, Budget};
use tidegate_schemas::limits::METRICS_SUBSCRIPTIONS;

use super::traces::Exports;
use names::Figure;
pub(crate) use process::max_files;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The label value that stands for all beyond a bound.
pub const OTHER: &str = "other";

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
struct ProtocolLabels {
    protocol: &'static str,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BindingLabels {
    binding: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    binding: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabels {
    change: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

type BySubscription = Family<SubscriptionLabels, Histogram, fn() -> Histogram>;

/// The figures of one gateway. Handed down to whatever observes something; one method for each observation.
pub struct Metrics {
    registry: Registry,
    http_requests: Family<RequestLabels, Counter>,
    connections: Gauge,
    connections_refused: Family<ReasonLabels, Counter>,
    followers: Family<ProtocolLabels, Gauge>,
    publishes: Family<OutcomeLabels, Counter>,
    publish_seconds: Family<OutcomeLabels, Histogram, fn() -> Histogram>,
    append_seconds: Histogram,
    commit_records: Histogram,
    commit_bytes: Histogram,
    deliveries: Family<DeliveryLabels, Counter>,
    delivery_seconds: BySubscription,
    delivery_age_seconds: BySubscription,
    dead_letters: Family<ReasonLabels, Counter>,
    duplicates_dropped: Counter,
    events_trimmed: Family<SubscriptionLabels, Counter>,
    queue_events: Family<SubscriptionLabels, Gauge>,
    paused_keys: Family<SubscriptionLabels, Gauge>,
    breaker_open: Family<SubscriptionLabels, Gauge>,
    subscription_active: Family<SubscriptionLabels, Gauge>,
    subscription_lag_events: Family<SubscriptionLabels, Gauge>,
    oldest_undelivered_seconds: Family<SubscriptionLabels, Gauge>,
    binding_messages: Family<MessageLabels, Counter>,
    binding_running: Family<BindingLabels, Gauge>,
    memory_bytes: Family<AccountLabels, Gauge>,
    memory_limit_bytes: Gauge,
    memory_refused: Family<AccountLabels, Counter>,
    publishes_in_flight: Gauge,
    publishes_refused: Counter,
    broker_reachable: Gauge,
    gateways: Gauge,
    slots_owned: Gauge,
    slots_damaged: Gauge,
    slot_changes: Family<ChangeLabels, Counter>,
    slot_lease_expirations: Counter,
    gateway_requests: Family<ResultLabels, Counter>,
    spans: Family<OutcomeLabels, Counter>,
    subscriptions: Mutex<HashSet<String>>,
}

/// How a subscription stands when figures are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether deliveries go out.
    pub active: bool,
    /// Whether nothing goes out but probes, because the sink is at fault.
    pub probed: bool,
    /// Events that wait in memory.
    pub queued: usize,
    /// Keys that stand still until somebody resumes them.
    pub paused_keys: usize,
    /// Events from the oldest that is not settled to the end.
    pub lag: u64,
    /// The age of that oldest one.
    pub oldest: Duration,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn add(registry: &mut Registry, figure: Figure, metric: impl Metric) {
    registry.register(figure.name, figure.help, metric);
}

/// 0.25 ms to 8 s: an fdatasync takes milliseconds, and a publish is given up after seconds.
fn publish_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
}

/// 1 ms to 65 s, as far as most sinks may take. Coarse, because each subscription has its own.
fn attempt_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 9))
}

/// 2 ms to 36 h, because retries go on for a day by default.
fn age_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.002, 6.0, 11))
}

impl Metrics {
    /// All figures at zero.
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::default(),
            http_requests: Family::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            followers: Family::default(),
            publishes: Family::default(),
            publish_seconds: Family::new_with_constructor(publish_buckets),
            append_seconds: publish_buckets(),
            commit_records: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            commit_bytes: Histogram::new(exponential_buckets(1024.0, 4.0, 8)),
            deliveries: Family::default(),
            delivery_seconds: Family::new_with_constructor(attempt_buckets),
            delivery_age_seconds: Family::new_with_constructor(age_buckets),
            dead_letters: Family::default(),
            duplicates_dropped: Counter::default(),
            events_trimmed: Family::default(),
            queue_events: Family::default(),
            paused_keys: Family::default(),
            breaker_open: Family::default(),
            subscription_active: Family::default(),
            subscription_lag_events: Family::default(),
            oldest_undelivered_seconds: Family::default(),
            binding_messages: Family::default(),
            binding_running: Family::default(),
            memory_bytes: Family::default(),
            memory_limit_bytes: Gauge::default(),
            memory_refused: Family::default(),
            publishes_in_flight: Gauge::default(),
            publishes_refused: Counter::default(),
            broker_reachable: Gauge::default(),
            gateways: Gauge::default(),
            slots_owned: Gauge::default(),
            slots_damaged: Gauge::default(),
            slot_changes: Family::default(),
            slot_lease_expirations: Counter::default(),
            gateway_requests: Family::default(),
            spans: Family::default(),
            subscriptions: Mutex::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        add(registry, names::BUILD, Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        add(registry, names::HTTP_REQUESTS, self.http_requests.clone());
        add(registry, names::CONNECTIONS, self.connections.clone());
        add(registry, names::CONNECTIONS_REFUSED, self.connections_refused.clone());
        add(registry, names::FOLLOWERS, self.followers.clone());
        add(registry, names::PUBLISHES, self.publishes.clone());
        add(registry, names::PUBLISH_SECONDS, self.publish_seconds.clone());
        add(registry, names::APPEND_SECONDS, self.append_seconds.clone());
        add(registry, names::COMMIT_RECORDS, self.commit_records.clone());
        add(registry, names::COMMIT_BYTES, self.commit_bytes.clone());
        add(registry, names::DELIVERIES, self.deliveries.clone());
        add(registry, names::DELIVERY_SECONDS, self.delivery_seconds.clone());
        add(registry, names::DELIVERY_AGE_SECONDS, self.delivery_age_seconds.clone());
        add(registry, names::DEAD_LETTERS, self.dead_letters.clone());
        add(registry, names::DUPLICATES_DROPPED, self.duplicates_dropped.clone());
        add(registry, names::EVENTS_TRIMMED, self.events_trimmed.clone());
        add(registry, names::QUEUE_EVENTS, self.queue_events.clone());
        add(registry, names::PAUSED_KEYS, self.paused_keys.clone());
        add(registry, names::BREAKER_OPEN, self.breaker_open.clone());
        add(registry, names::SUBSCRIPTION_ACTIVE, self.subscription_active.clone());
        add(registry, names::SUBSCRIPTION_LAG_EVENTS, self.subscription_lag_events.clone());
        add(registry, names::OLDEST_UNDELIVERED_SECONDS, self.oldest_undelivered_seconds.clone());
        add(registry, names::BINDING_MESSAGES, self.binding_messages.clone());
        add(registry, names::BINDING_RUNNING, self.binding_running.clone());
        add(registry, names::MEMORY_BYTES, self.memory_bytes.clone());
        add(registry, names::MEMORY_LIMIT_BYTES, self.memory_limit_bytes.clone());
        add(registry, names::MEMORY_REFUSED, self.memory_refused.clone());
        add(registry, names::PUBLISHES_IN_FLIGHT, self.publishes_in_flight.clone());
        add(registry, names::PUBLISHES_REFUSED, self.publishes_refused.clone());
        add(registry, names::BROKER_REACHABLE, self.broker_reachable.clone());
        add(registry, names::GATEWAYS, self.gateways.clone());
        add(registry, names::SLOTS_OWNED, self.slots_owned.clone());
        add(registry, names::SLOTS_DAMAGED, self.slots_damaged.clone());
        add(registry, names::SLOT_CHANGES, self.slot_changes.clone());
        add(registry, names::SLOT_LEASE_EXPIRATIONS, self.slot_lease_expirations.clone());
        add(registry, names::GATEWAY_REQUESTS, self.gateway_requests.clone());
        add(registry, names::SPANS, self.spans.clone());
        registry.register_collector(Box::new(process::Process));
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

    /// Somebody follows a topic from now until what this gives is dropped. `protocol` is `sse` or `websocket`.
    pub fn follower(self: &Arc<Self>, protocol: &'static str) -> Follower {
        self.followers.get_or_create(&ProtocolLabels { protocol }).inc();
        Follower { metrics: Arc::clone(self), protocol }
    }

    /// A request to publish was answered after that time.
    pub fn published(&self, outcome: &'static str, elapsed: Duration) {
        self.publishes.get_or_create(&OutcomeLabels { outcome }).inc();
        self.publish_seconds.get_or_create(&OutcomeLabels { outcome }).observe(elapsed.as_secs_f64());
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

    /// An attempt of a delivery ended after that time.
    pub fn delivered(&self, subscription: &str, outcome: &'static str, took: Duration) {
        let subscription = self.subscription(subscription);
        let labels = SubscriptionLabels { subscription: subscription.clone() };
        self.delivery_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        self.deliveries.get_or_create(&DeliveryLabels { subscription, outcome }).inc();
    }

    /// An event reached its subscription's sink so long after it was stored.
    pub fn delivered_at_age(&self, subscription: &str, age: Duration) {
        let labels = SubscriptionLabels { subscription: self.subscription(subscription) };
        self.delivery_age_seconds.get_or_create(&labels).observe(age.as_secs_f64());
    }

    /// An event became a dead letter.
    pub fn dead_lettered(&self, reason: &'static str) {
        self.dead_letters.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// An event was dropped because it was delivered before.
    pub fn duplicate_dropped(&self) {
        self.duplicates_dropped.inc();
    }

    /// A subscription lost so many events because their topic keeps them no longer.
    pub fn events_trimmed(&self, subscription: &str, events: u64) {
        let labels = SubscriptionLabels { subscription: self.subscription(subscription) };
        self.events_trimmed.get_or_create(&labels).inc_by(events);
    }

    /// How every input binding stands that is read here, and what it has done since it began. Files bound how many there are.
    pub fn bindings_stand<'a>(&self, standings: impl IntoIterator<Item = (&'a str, bool, [(&'static str, u64); 3])>) {
        self.binding_running.clear();
        self.binding_messages.clear();
        for (binding, runs, outcomes) in standings {
            self.binding_running.get_or_create(&BindingLabels { binding: binding.to_owned() }).set(i64::from(runs));
            for (outcome, count) in outcomes {
                // The binding counts; this is where it is shown.
                let labels = MessageLabels { binding: binding.to_owned(), outcome };
                self.binding_messages.get_or_create(&labels).inner().store(count, Ordering::Relaxed);
            }
        }
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

    /// How this gateway and the others stand: whether the broker can be reached, how many gateways there are, how many
    /// slots this one owns, and how many it cannot read any more.
    pub fn cluster(&self, reachable: bool, gateways: usize, slots_owned: usize, slots_damaged: usize) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.broker_reachable.set(i64::from(reachable));
        self.gateways.set(gauge(gateways));
        self.slots_owned.set(gauge(slots_owned));
        self.slots_damaged.set(gauge(slots_damaged));
    }

    /// The lease on a slot was found to have run out.
    pub fn lease_expired(&self) {
        self.slot_lease_expirations.inc();
    }

    /// A delivery slot was `acquired` here, `released`, or `lost` to another gateway.
    pub fn slot_changed(&self, change: &'static str) {
        self.slot_changes.get_or_create(&ChangeLabels { change }).inc();
    }

    /// Requests among gateways since the start, by what came of them.
    pub fn gateway_requests(&self, results: impl IntoIterator<Item = (&'static str, u64)>) {
        for (result, count) in results {
            // The lane counts; this is where it is shown.
            self.gateway_requests.get_or_create(&ResultLabels { result }).inner().store(count, Ordering::Relaxed);
        }
    }

    /// How every subscription stands now. Those that are gone are forgotten; those beyond the bound are told as one, by
    /// the worst of them.
    pub fn subscriptions_stand<'a>(&self, standings: impl IntoIterator<Item = (&'a str, Standing)>) {
        let mut told: std::collections::BTreeMap<String, Standing> = std::collections::BTreeMap::new();
        for (name, standing) in standings {
            told.entry(self.subscription(name))
                .and_modify(|known| {
                    known.active &= standing.active;
                    known.probed |= standing.probed;
                    known.queued += standing.queued;
                    known.paused_keys += standing.paused_keys;
                    known.lag = known.lag.max(standing.lag);
                    known.oldest = known.oldest.max(standing.oldest);
                })
                .or_insert(standing);
        }
        let families = [
            &self.queue_events,
            &self.paused_keys,
            &self.breaker_open,
            &self.subscription_active,
            &self.subscription_lag_events,
            &self.oldest_undelivered_seconds,
        ];
        for family in families {
            family.clear();
        }
        for (subscription, standing) in told {
            let labels = SubscriptionLabels { subscription };
            let set = |family: &Family<SubscriptionLabels, Gauge>, value: u64| {
                family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            set(&self.queue_events, standing.queued as u64);
            set(&self.paused_keys, standing.paused_keys as u64);
            set(&self.breaker_open, u64::from(standing.probed));
            set(&self.subscription_active, u64::from(standing.active));
            set(&self.subscription_lag_events, standing.lag);
            set(&self.oldest_undelivered_seconds, standing.oldest.as_secs());
        }
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

/// Somebody who follows a topic.
#[derive(Debug)]
pub struct Follower {
    metrics: Arc<Metrics>,
    protocol: &'static str,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.metrics.followers.get_or_create(&ProtocolLabels { protocol: self.protocol }).dec();
    }
}

impl Exports for Metrics {
    fn spans(&self, outcome: &'static str, count: usize) {
        self.spans.get_or_create(&OutcomeLabels { outcome }).inc_by(count as u64);
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
