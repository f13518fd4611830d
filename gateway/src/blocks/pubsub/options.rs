use std::time::Duration;

use tidegate_schemas::limits;

use crate::sink::AddressPolicy;

/// How the block behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether the first publish to a name creates its topic.
    pub create_topics_on_first_use: bool,
    /// From a publish to its receipt; beyond it the outcome is unknown.
    pub publish_timeout: Duration,
    /// Events on their way to the log.
    pub publishes_in_flight: usize,
    /// Which addresses subscriptions may call that requests created; those of files may call all.
    pub request_sinks: AddressPolicy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create_topics_on_first_use: false,
            publish_timeout: limits::PUBLISH_TIMEOUT,
            publishes_in_flight: limits::PUBLISHES_IN_FLIGHT,
            request_sinks: AddressPolicy::PublicOnly,
        }
    }
}
