//! By which keys the queues of readers are bound, which a broker cannot be asked over AMQP: remembered in the slot of the reader.
//!
//! | key | value |
//! |---|---|
//! | `bindings/bound/READER` | `{"v":1,"broker":"legacy","bound":[["orders","order.#"]]}`: the broker, and pairs of exchange and key |
//!
//! What a queue is to be bound by is written before it is bound, and what it is no longer to be bound by is taken out after it was
//! unbound. So the entry has every key by which a reader's queue was bound, however its gateway ended. On another broker it
//! is another queue, of which nothing is known.

use std::collections::BTreeSet;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::catalogue::{Version, read, write};
use crate::error::{Error, ErrorKind, Result};
use crate::slot::placement::slot_of;
use crate::slot::{Command, Expect, SlotHandle};

/// What stands before a reader's name in the key of its entry.
pub(crate) const PREFIX: &str = "bindings/bound/";

/// Exchanges and the keys by which a queue is bound to them.
pub type Bound = BTreeSet<(ByteString, ByteString)>;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    v: Version,
    broker: ByteString,
    bound: Bound,
}

/// The slot that a reader belongs to, in a cluster of so many: its owner reads.
pub fn slot_of_reader(reader: &str, slots: u32) -> u32 {
    // No topic has such a name.
    slot_of(&format!("binding/{reader}"), 0, slots)
}

/// Writes down that a reader's queue may be bound by these from now on too. Gives those by which it may be bound and is not to be:
/// once it is unbound from them [`unbound`] is told.
///
/// # Errors
/// It could not be written, or what was written cannot be read: nothing is to be bound.
pub async fn binding(slot: &dyn SlotHandle, reader: &str, broker: &str, wanted: &Bound) -> Result<Bound> {
    let key = format!("{PREFIX}{reader}");
    let entry = slot.get(key.as_bytes()).map(|head| read::<Entry>(key.as_bytes(), &head.value)).transpose()?;
    let before = entry.filter(|entry| entry.broker == broker).map(|entry| entry.bound);
    let gone: Bound = before.iter().flatten().filter(|it| !wanted.contains(*it)).cloned().collect();
    let all: Bound = wanted.union(&gone).cloned().collect();
    if before.as_ref() != Some(&all) {
        put(slot, reader, broker, all).await?;
    }
    Ok(gone)
}

/// Writes down that it is bound by these and by no others.
///
/// # Errors
/// It could not be written; it is unbound once more the next time.
pub async fn unbound(slot: &dyn SlotHandle, reader: &str, broker: &str, wanted: Bound) -> Result<()> {
    put(slot, reader, broker, wanted).await
}

async fn put(slot: &dyn SlotHandle, reader: &str, broker: &str, bound: Bound) -> Result<()> {
    let entry = Entry { v: Version, broker: broker.into(), bound };
    let command = Command::new().put(format!("{PREFIX}{reader}"), Expect::Any, write(&entry));
    let written = slot.commit(command).await;
    written.map(drop).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "by which keys the queue is bound cannot be written down").with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::PartitionLog;
    use crate::slot::{Journal, Options};
    use crate::testing::{MemoryBroker, environment};

    fn bound(keys: &[&str]) -> Bound {
        keys.iter().map(|key| (ByteString::from("orders"), ByteString::from(*key))).collect()
    }

    async fn open(log: &Arc<dyn PartitionLog>) -> Journal {
        Journal::open(Arc::clone(log), 0, environment(1), Options::default()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_bound_is_known_however_a_gateway_ends() {
        let log: Arc<dyn PartitionLog> = MemoryBroker::default().client();
        let slot = open(&log).await;
        assert_eq!(binding(&slot, "in", "legacy", &bound(&["a", "b"])).await.unwrap(), bound(&[]));
        let stored = slot.get(b"bindings/bound/in").unwrap();
        assert_eq!(stored.value, r#"{"v":1,"broker":"legacy","bound":[["orders","a"],["orders","b"]]}"#);
        assert_eq!(binding(&slot, "in", "legacy", &bound(&["a", "b"])).await.unwrap(), bound(&[]));
        assert_eq!(
            slot.get(b"bindings/bound/in").unwrap().revision,
            stored.revision,
            "what is known is not written again"
        );
        // It ends before it has unbound anything, and again with other keys.
        assert_eq!(binding(&slot, "in", "legacy", &bound(&["b", "c"])).await.unwrap(), bound(&["a"]));
        slot.close().await;
        let slot = open(&log).await;
        assert_eq!(binding(&slot, "in", "legacy", &bound(&["d"])).await.unwrap(), bound(&["a", "b", "c"]));
        unbound(&slot, "in", "legacy", bound(&["d"])).await.unwrap();
        assert_eq!(binding(&slot, "in", "legacy", &bound(&["d"])).await.unwrap(), bound(&[]));
        assert_eq!(binding(&slot, "in", "other", &bound(&["e"])).await.unwrap(), bound(&[]), "another queue");
        assert_eq!(binding(&slot, "beside", "legacy", &bound(&["e"])).await.unwrap(), bound(&[]));
        let newer = Command::new().put("bindings/bound/in", Expect::Any, r#"{"v":2}"#);
        slot.commit(newer).await.unwrap();
        let error = binding(&slot, "in", "legacy", &bound(&["d"])).await.unwrap_err();
        assert!(error.to_string().contains("bindings/bound/in"), "{error}");
    }
}
