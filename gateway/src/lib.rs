//! Tidegate: an event mesh gateway. One binary that turns the broker you run, or none, into an event mesh.
//!
//! | module | is |
//! |---|---|
//! | [`blocks`] | what is offered, whatever protocol it is asked in |
//! | [`edge`] | the protocols, and nothing but the protocols |
//! | [`sink`] | the client that calls subscribers |
//! | `tidegate_resources` | what files declare, a crate of its own |
//! | [`compose`] | the one place that knows every part |
//! | [`lifecycle`] | the order of start and stop |
//! | [`memory`] | how much of it the process may have |
//! | [`telemetry`] | logs, figures and traces |
//! | [`cli`] | the command line |

pub mod blocks;
pub mod cli;
pub mod compose;
pub mod edge;
pub mod lifecycle;
pub mod memory;
mod reload;
pub mod sink;
pub mod telemetry;
