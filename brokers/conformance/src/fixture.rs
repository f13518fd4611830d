//! What an adapter's tests give the suite.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::{BoxFuture, Environment, Error, ErrorKind, Lane, PartitionLog, Result};

use crate::broker::Act;
use crate::proxy::Proxy;

/// What a case asks of the place where it runs, beyond an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// The broker can be opened again after it was closed, with what it held.
    Reopen,
    /// The broker's client, or the broker itself where it is in the process, can die without being closed; what it had
    /// not made durable is lost.
    Crash,
    /// The broker's storage can be made full and free again.
    StorageFull,
    /// A second process on the same storage is refused ([`tidegate_backbone::Capability::exclusive`]).
    Exclusive,
    /// Several processes use the broker at once: [`Fixture::open`] may be called again before the log that it gave earlier
    /// was closed, and there is more than one slot.
    Shared,
    /// The broker has lanes, on which several processes meet.
    Lane,
    /// The way to the broker can be cut, and mended.
    Cut,
    /// A fault proxy stands between the log and each node of its broker.
    Connection,
    /// The broker's processes can be killed, and started again on their data.
    Restart,
    /// The broker's processes can be stopped and go on.
    Pause,
    /// The broker has three nodes, and each partition a replica on each.
    Nodes,
}

impl Need {
    /// Whether the case brings about a fault of network or broker. Those take long, and are chosen by themselves:
    /// [`crate::Faults`].
    pub fn is_fault(self) -> bool {
        matches!(self, Self::Connection | Self::Restart | Self::Pause | Self::Nodes)
    }
}

impl fmt::Display for Need {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Reopen => "reopen",
            Self::Crash => "crash",
            Self::StorageFull => "storage full",
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
            Self::Lane => "lane",
            Self::Cut => "cut",
            Self::Connection => "connection",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Nodes => "nodes",
        })
    }
}

/// One broker of its own, empty when a case begins.
pub trait Fixture: Send + Sync {
    /// What a faulted case waits for anything before it calls it hung. One that is meant to hang may shorten it.
    fn patience(&self) -> Duration {
        Duration::from_secs(90)
    }

    /// Connects to the broker, or opens it: once at first, and again after a close or a crash.
    fn open<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn PartitionLog>>>;

    /// Whether the broker stamps records with the machine's clock and not with that of the environment. Then processes of the
    /// suite are told where the clock stood that the case holds, at the time that a record has. The broker has to run on this
    /// machine for that.
    fn stamps_by_the_machine(&self) -> bool {
        false
    }

    /// Lets the process die that holds the log: nothing that was not durable survives, and the log given earlier does
    /// nothing any more. Only called where [`Need::Crash`] is met.
    fn crash(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Makes the storage full, or free again. Only called where [`Need::StorageFull`] is met.
    fn fill(&self, full: bool) {
        let _ = full;
    }

    /// Lanes as another process on the broker sees them: a connection of its own with each call, beside whatever is open.
    /// It ends with the environment. Only called where [`Need::Lane`] is met.
    fn open_lane<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Arc<dyn Lane>>> {
        let _ = environment;
        Box::pin(async { Err(Error::new(ErrorKind::Misconfigured, "the fixture has no lanes")) })
    }

    /// Breaks every connection to the broker and lets none be made, or lets them be made again. Only called where
    /// [`Need::Cut`] is met.
    fn cut(&self, cut: bool) -> BoxFuture<'_, ()> {
        for proxy in self.proxies() {
            if cut {
                proxy.refuse();
            } else {
                proxy.heal();
            }
        }
        Box::pin(async {})
    }

    /// The proxies between the log and its broker, one for each node. Asked where [`Need::Connection`] is met.
    fn proxies(&self) -> &[Proxy] {
        &[]
    }

    /// Does something to the processes of all nodes, or of one, counted from 1; [`crate::Broker::act`] does. Only called
    /// where [`Need::Restart`], [`Need::Pause`] or [`Need::Nodes`] is met.
    fn act(&self, act: Act, node: Option<u32>) -> BoxFuture<'_, ()> {
        let _ = (act, node);
        Box::pin(async {})
    }
}
