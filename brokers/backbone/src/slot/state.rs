//! What a process has seen of a slot, shared by whoever folds it at the moment, its follower or its owner, and by readers.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::frame::Commit;
use super::heads::Heads;
use super::journal::Watches;
use super::{Change, Head, Watch};
use crate::slot::accept::Broken;

/// The state that readers see, and who is told of changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) heads: Heads,
    pub(crate) watches: Watches,
    /// The revision, for those who wait for one.
    pub(crate) seen: watch::Sender<u64>,
}

impl State {
    pub(crate) fn new(heads: Heads) -> Arc<RwLock<Self>> {
        let seen = watch::Sender::new(heads.revision());
        Arc::new(RwLock::new(Self { heads, seen, ..Self::default() }))
    }

    /// Carries an accepted commit out and tells those who watch.
    pub(crate) fn commit(&mut self, commit: &Commit) -> Result<(), Broken> {
        self.heads.commit(commit)?;
        for operation in &commit.operations {
            let value = if let Change::Put(value) = &operation.change { Some(value) } else { None };
            self.watches.changed(&operation.key, commit.revision, value);
        }
        self.seen.send_replace(commit.revision);
        Ok(())
    }

    /// Takes another state, which was read anew: those who watch are to read all again.
    pub(crate) fn replace(&mut self, heads: Heads) {
        self.seen.send_replace(heads.revision());
        self.heads = heads;
        self.watches.rescan();
    }
}

/// Reads of a shared state.
pub(crate) trait Reads {
    fn state(&self) -> &RwLock<State>;

    fn read_key(&self, key: &[u8]) -> Option<Head> {
        self.state().read().heads.get(key).cloned()
    }

    fn read_prefix(&self, prefix: &[u8]) -> Vec<(Bytes, u64, Bytes)> {
        let state = self.state().read();
        state.heads.scan(prefix).map(|(key, head)| (key.clone(), head.revision, head.value.clone())).collect()
    }

    fn read_revision(&self) -> u64 {
        self.state().read().heads.revision()
    }

    fn follow_prefix(&self, prefix: Bytes) -> Watch {
        self.state().write().watches.add(prefix)
    }
}

impl Reads for Arc<RwLock<State>> {
    fn state(&self) -> &RwLock<State> {
        self
    }
}
