//! Where events go, by which rules: topic names, partitions, filters and their index, retry, the meaning of a sink's
//! answer, when deliveries to a sink wait, and when a subscription pauses.
//!
//! Everything here is a function of its arguments. Nothing does I/O, spawns, draws randomness or reads a clock: where a
//! rule depends on time or chance, the time and the random bits are arguments, so that a test can replay any decision.

pub mod answer;
pub mod breaker;
pub mod budget;
pub mod cel;
pub mod cesql;
mod demand;
pub mod filter;
pub mod handshake;
pub mod hops;
pub mod matching;
pub mod partition;
pub mod pause;
pub mod retry;
pub mod schedule;
pub mod topic;
mod view;

pub use answer::{Answer, Verdict};
pub use breaker::Breaker;
pub use budget::RetryBudget;
pub use cesql::Expression;
pub use demand::Comparison;
pub use filter::{Explanation, Filter, FilterFault, explain};
pub use handshake::{Handshake, Rate};
pub use matching::{Matcher, SubscriptionId};
pub use partition::KeyFrom;
pub use pause::{PauseCause, PauseState};
pub use retry::{RetryDecision, RetryHint, RetryPolicy};
pub use topic::{TopicName, TopicPattern};
pub use view::EventView;
