//! What a broker can do, as data: tests, documentation and refusals are derived from it.

use std::fmt;

/// What an acknowledged record survives, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing: it is gone with the process.
    Memory,
    /// The end of the process, but not of the machine: the operating system holds it.
    Os,
    /// The loss of a machine, but not of all at once: several hold it, none has been told to write it down.
    Replicated,
    /// Power loss of this machine: written and synchronised to its disk.
    Fsync,
    /// Power loss of all machines and the loss of some: synchronised by a quorum.
    FsyncQuorum,
}

impl Durability {
    /// The name that receipts carry.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Os => "os",
            Self::Replicated => "replicated",
            Self::Fsync => "fsync",
            Self::FsyncQuorum => "fsync-quorum",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What an adapter says of itself and of the broker that it is connected to.
#[derive(Clone, Debug)]
pub struct Capability {
    /// The broker's name: `embedded`, `kafka`, `nats`, `rabbitmq`.
    pub broker: &'static str,
    /// What an acknowledged append survives.
    pub durability: Durability,
    /// Whether [`crate::Appended::position`] is told of every record; where not, an appender that needs one which is not told reads
    /// back.
    pub positions_acknowledged: bool,
    /// The most bytes that one record may take.
    pub record_bytes_max: usize,
    /// Slots that a new cluster on this broker is created with.
    pub slots: u32,
    /// Partitions that a new topic gets where nothing is said.
    pub partitions_default: u32,
    /// Whether one process alone can hold the broker, so that no heartbeats are needed to show who owns a slot.
    pub exclusive: bool,
}
