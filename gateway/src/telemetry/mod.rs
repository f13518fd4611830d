//! What the gateway tells about itself: log lines ([`logging`]), figures ([`metrics`]), and how to repeat neither
//! without end ([`Throttle`]).

pub mod logging;
pub mod metrics;
mod throttle;

pub use metrics::Metrics;
pub use throttle::Throttle;
