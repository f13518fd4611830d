//! The order in which a gateway stops, and the signals that ask for it.
//!
//! | step | what | why there |
//! |---|---|---|
//! | 1 | not ready | whoever balances load sends no more |
//! | 2 | the listener closes, requests in flight end | nothing new is acknowledged |
//! | 3 | deliveries that are out end, none goes out | none is counted as failed because of the shutdown |
//! | 4 | delivery progress is journalled | nothing is delivered again |
//! | 5 | the slots are released | other gateways take them over at once |
//! | 6 | the gateway says goodbye to the others | until then it answers what they ask the owner of a slot |
//! | 7 | the log is closed | everything above has written what it had to |
//! | 8 | the last spans are exported | a collector that is away delays nothing that must be written |
//!
//! Steps 2 and 3 together take at most the grace. A second signal ends the process at once; what was acknowledged is
//! durable all the same.

use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::consume::Consume;
use tidegate_backbone::{Environment, PartitionLog};
use tidegate_schemas::limits;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::blocks::cluster::Cluster;
use crate::edge::listener::Server;
use crate::edge::native::Readiness;
use crate::telemetry::traces::Traces;

/// The last steps have this much time each.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// What has to be stopped.
#[derive(Debug)]
pub struct Parts {
    /// Step 1.
    pub readiness: Readiness,
    /// Step 2.
    pub server: Server,
    /// Where requests run.
    pub edge: Environment,
    /// Step 3: where deliveries run.
    pub delivery: Environment,
    /// Step 4.
    pub consume: Arc<Consume>,
    /// Steps 5 and 6.
    pub cluster: Cluster,
    /// Step 7.
    pub log: Arc<dyn PartitionLog>,
    /// Step 8.
    pub traces: Traces,
    /// Where the rest runs.
    pub backbone: Environment,
    /// What steps 2 and 3 may take together.
    pub grace: Duration,
}

impl Parts {
    /// Stops everything in its order. Gives whether all ended by itself.
    pub async fn stop(self) -> bool {
        let deadline = tokio::time::Instant::now() + self.grace;
        let left = || deadline.saturating_duration_since(tokio::time::Instant::now());
        self.readiness.set(false);
        // Streams that follow a topic end by this signal; they would outlast any grace.
        self.edge.stopping().cancel();
        let cut = self.server.shutdown(left()).await;
        let mut clean = self.edge.stop(left()).await && cut == 0;
        if !self.delivery.stop(left().max(Duration::from_secs(1))).await {
            // No failure of the process: whoever took an event and never answered gets it again.
            warn!("deliveries were still out when the grace ended; they are delivered again at the next start");
        }
        self.consume.finish().await;
        self.cluster.leave().await;
        self.log.close().await;
        self.traces.shutdown(limits::TRACES_SHUTDOWN_GRACE).await;
        clean &= self.backbone.stop(LAST_STEPS).await;
        info!(clean, "stopped");
        clean
    }
}

/// The signals that ask a process to end.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes SIGTERM and SIGINT over.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next one; gives its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
