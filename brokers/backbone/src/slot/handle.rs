//! A slot as any process of the cluster sees it, whoever owns it.

use std::fmt;

use bytes::Bytes;

use super::{Command, CommitError, Committed, Head, Journal, Watch};
use crate::log::BoxFuture;

/// Reads answer at once from what this process has followed of the slot; commits are made by whoever owns it.
///
/// A commit that has returned is seen by the reads of this process that begin afterwards. What another process committed
/// is seen a moment later. The owner's own reads show everything that it acknowledged.
pub trait SlotHandle: Send + Sync + fmt::Debug {
    /// Which slot.
    fn slot(&self) -> u32;

    /// What the key is, as of [`SlotHandle::revision`].
    fn get(&self, key: &[u8]) -> Option<Head>;

    /// Every key with that prefix with its revision and value, in byte order, all as of one revision.
    fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, u64, Bytes)>;

    /// The revision of the last commit that this process has seen; 0 before the first.
    fn revision(&self) -> u64;

    /// Follows changes of the keys with that prefix, from now on; a change of owner may show as
    /// [`super::Watched::Rescan`].
    fn watch(&self, prefix: Bytes) -> Watch;

    /// Commits a command, here or at the owner. Where no owner answers in time, it is [`CommitError::Unavailable`] if the
    /// command was never sent, otherwise [`CommitError::Unknown`].
    fn commit(&self, command: Command) -> BoxFuture<'_, Result<Committed, CommitError>>;
}

impl SlotHandle for Journal {
    fn slot(&self) -> u32 {
        Self::slot(self)
    }

    fn get(&self, key: &[u8]) -> Option<Head> {
        Self::get(self, key)
    }

    fn scan(&self, prefix: &[u8]) -> Vec<(Bytes, u64, Bytes)> {
        Self::scan(self, prefix)
    }

    fn revision(&self) -> u64 {
        Self::revision(self)
    }

    fn watch(&self, prefix: Bytes) -> Watch {
        Self::watch(self, prefix)
    }

    fn commit(&self, command: Command) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(Self::commit(self, command))
    }
}
