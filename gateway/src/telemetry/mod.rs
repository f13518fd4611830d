//! What the gateway tells about itself: log lines ([`logging`]), figures ([`metrics`]), traces ([`traces`]), and how to
//! repeat a line not without end ([`Throttle`]).

pub mod logging;
pub mod metrics;
mod throttle;
pub mod traces;

pub use metrics::Metrics;
pub use throttle::Throttle;
