//! What the tests from outside share: a real gateway process, real sinks, a load that remembers what was
//! acknowledged, and a checker that compares it with what can be read back.
//!
//! Nothing here imports the gateway. A test starts the binary as a user would and sees only what a user sees: its
//! ports, its answers, its exit code and its files.
//!
//! - [`home::Home`] is a folder with data and resource files; [`home::Home::start`] gives a running [`gateway::Gateway`].
//! - [`client::Client`] speaks HTTP to it, [`raw`] speaks broken HTTP to it, [`frames`] HTTP/2 frame by frame.
//! - [`sink::Sink`] receives deliveries and answers as the test says.
//! - [`bindings`] declares queues of others as sinks and sources, and knows how they stand.
//! - [`cluster`] starts several gateways on one broker, and knows what they own.
//! - [`collector::Collector`] is a real OpenTelemetry Collector that receives traces.
//! - [`load::Load`] publishes from many producers; [`checker::check`] says what became of it.
//! - [`trace`] reads what `strace` saw.
//! - [`mount`] gives a disk that can be filled.
//! - [`machine`] says loudly what this machine does not have.
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests run beside the product, not inside it: they read real clocks and start tasks of their own"
)]

pub mod bindings;
pub mod checker;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod frames;
pub mod gateway;
pub mod home;
pub mod load;
pub mod machine;
pub mod mount;
pub mod random;
pub mod raw;
pub mod sink;
pub mod subscriptions;
pub mod trace;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a test waits for anything before it calls it hung. Generous: tests assert progress by counts, and a busy
/// machine must not fail them.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The root of the workspace.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in a folder of the workspace").to_path_buf()
}
