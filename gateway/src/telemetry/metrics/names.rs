//! The one table of figures: what is registered, what `docs/metrics.md` lists, and what dashboards may ask for.

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; exposed with the suffix `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often a value was in which range; exposed with `_bucket`, `_sum` and `_count`.
    Histogram,
    /// Labels that say something about the process; exposed with the suffix `_info`.
    Info,
}

impl Kind {
    /// What is put behind a figure's name where it is exposed.
    pub fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["_bucket", "_sum", "_count"],
            Self::Info => &["_info"],
        }
    }

    /// As the format of Prometheus calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// One figure.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name, without a suffix.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says, without a full stop, as the format wants it.
    pub help: &'static str,
}

macro_rules! figures {
    ($($constant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Figure =
            Figure { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// All of them.
        pub const ALL: &[Figure] = &[$($constant),*];
    };
}

figures! {
    BUILD = "tidegate_build", Info, ["version"], "The version that runs";
    HTTP_REQUESTS = "tidegate_http_requests", Counter, ["route", "method", "status"], "Answers, by route template, method and status class";
    CONNECTIONS = "tidegate_connections", Gauge, [], "Open connections";
    CONNECTIONS_REFUSED = "tidegate_connections_refused", Counter, ["reason"], "Connections that were refused or cut";
    FOLLOWERS = "tidegate_followers", Gauge, ["protocol"], "Clients that follow a topic";
    PUBLISHES = "tidegate_publishes", Counter, ["outcome"], "Requests to publish: accepted, refused, failed, or of unknown outcome";
    PUBLISH_SECONDS = "tidegate_publish_seconds", Histogram, ["outcome"], "Time from a request to publish to its answer";
    APPEND_SECONDS = "tidegate_append_seconds", Histogram, [], "Time from an append to its acknowledgement";
    COMMIT_RECORDS = "tidegate_commit_records", Histogram, [], "Records of one commit of the embedded log";
    COMMIT_BYTES = "tidegate_commit_bytes", Histogram, [], "Bytes of one commit of the embedded log";
    DELIVERIES = "tidegate_deliveries", Counter, ["subscription", "outcome"], "Attempts of deliveries: done, retry, dead, unreachable, probe, key-paused, dropped, or expired";
    DELIVERY_SECONDS = "tidegate_delivery_seconds", Histogram, ["subscription"], "Time that an attempt of a delivery took";
    DELIVERY_AGE_SECONDS = "tidegate_delivery_age_seconds", Histogram, ["subscription"], "Time from the storing of an event to its delivery, retries counted";
    DEAD_LETTERS = "tidegate_dead_letters", Counter, ["reason"], "Events that became dead letters";
    DUPLICATES_DROPPED = "tidegate_duplicates_dropped", Counter, [], "Events that were dropped because they were delivered before";
    EVENTS_TRIMMED = "tidegate_events_trimmed", Counter, ["subscription"], "Events that a subscription lost because their topic keeps them no longer";
    QUEUE_EVENTS = "tidegate_queue_events", Gauge, ["subscription"], "Events that wait in memory for delivery";
    PAUSED_KEYS = "tidegate_paused_keys", Gauge, ["subscription"], "Keys that stand still until somebody resumes them";
    BREAKER_OPEN = "tidegate_breaker_open", Gauge, ["subscription"], "Whether nothing goes out but probes, because the sink cannot be reached or fails everything: 1 or 0";
    SUBSCRIPTION_ACTIVE = "tidegate_subscription_active", Gauge, ["subscription"], "Whether deliveries go out: 1, or 0 where it is paused or its sink cannot be reached";
    SUBSCRIPTION_LAG_EVENTS = "tidegate_subscription_lag_events", Gauge, ["subscription"], "Events from the oldest that is not settled to the end of its topics";
    OLDEST_UNDELIVERED_SECONDS = "tidegate_oldest_undelivered_seconds", Gauge, ["subscription"], "Age of the oldest event that is not settled; 0 where all are";
    BINDING_MESSAGES = "tidegate_binding_messages", Counter, ["binding", "outcome"], "Messages that this gateway read from queues: taken, because they became events; rejected; and redelivered, those among them that were given before";
    BINDING_RUNNING = "tidegate_binding_running", Gauge, ["binding"], "Whether the queue of an input binding that this gateway owns is read: 1, or 0 where it waits or is paused";
    MEMORY_BYTES = "tidegate_memory_bytes", Gauge, ["account"], "Memory that is held, by account of the budget";
    MEMORY_LIMIT_BYTES = "tidegate_memory_limit_bytes", Gauge, [], "The budget of memory";
    MEMORY_REFUSED = "tidegate_memory_refused", Counter, ["account"], "Refusals for want of memory, by account of the budget";
    PUBLISHES_IN_FLIGHT = "tidegate_publishes_in_flight", Gauge, [], "Events on their way to the log";
    PUBLISHES_REFUSED = "tidegate_publishes_refused", Counter, [], "Publishes that were refused for the number on their way";
    BROKER_REACHABLE = "tidegate_broker_reachable", Gauge, [], "Whether the backbone can be reached, answers, and takes what is written: 1 or 0";
    GATEWAYS = "tidegate_gateways", Gauge, [], "Gateways that share the backbone, as this one sees them";
    SLOTS_OWNED = "tidegate_slots_owned", Gauge, [], "Slots that this gateway owns";
    SLOTS_DAMAGED = "tidegate_slots_damaged", Gauge, [], "Slots that this gateway cannot read any more, because the broker lost records of them";
    SLOT_CHANGES = "tidegate_slot_changes", Counter, ["change"], "Delivery slots that this gateway acquired free or from an owner that gave them up, took over from one that fell silent, gave up by itself, or lost to another: acquired, taken-over, released, or lost";
    SLOT_LEASE_EXPIRATIONS = "tidegate_slot_lease_expirations", Counter, [], "Times that the lease on a slot was found to have run out before it was renewed, so that its deliveries waited";
    GATEWAY_REQUESTS = "tidegate_gateway_requests", Counter, ["result"], "Requests among gateways: sent, carried-out, duplicate, expired, turned-away, cancelled, or late";
    SPANS = "tidegate_spans", Counter, ["outcome"], "Spans of traces: exported, failed, or dropped";
    RESIDENT_MEMORY = "process_resident_memory_bytes", Gauge, [], "Memory of the process that is in RAM";
    CPU_SECONDS = "process_cpu_seconds", Counter, [], "Processor time of the process, user and system";
    OPEN_FILES = "process_open_fds", Gauge, [], "Open file descriptors of the process";
    MAX_FILES = "process_max_fds", Gauge, [], "File descriptors that the process may open";
    START_TIME = "process_start_time_seconds", Gauge, [], "When the process started, in seconds since 1970";
}
