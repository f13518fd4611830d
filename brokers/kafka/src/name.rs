//! The names that logs have on the broker.
//!
//! | log | topic |
//! |---|---|
//! | partition of a topic | partition of `PREFIX` + its name |
//! | generation of a slot | `NAMESPACE.slots.SLOT.EPOCH-SUFFIX`, one partition |
//! | outcomes of a slot | `NAMESPACE.outcomes.SLOT`, one partition |
//! | lanes | `NAMESPACE.lanes` |
//!
//! Ours have no `_`, which Kafka takes for `.` in the names of its metrics.

use bytestring::ByteString;
use tidegate_backbone::LogId;

/// What stands before names.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Before slots, outcomes and lanes.
    pub(crate) namespace: String,
    /// Before users' topics.
    pub(crate) prefix: String,
}

impl Names {
    /// The topic of users that has this name here.
    pub(crate) fn topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// The topic of a slot or its outcomes.
    pub(crate) fn of_slot(&self, id: &LogId) -> Option<String> {
        let namespace = &self.namespace;
        match id {
            LogId::Topic { .. } => None,
            LogId::Slot { slot, epoch, suffix } => Some(format!("{namespace}.slots.{slot}.{epoch}-{suffix:016x}")),
            LogId::Outcomes { slot } => Some(format!("{namespace}.outcomes.{slot}")),
        }
    }

    /// The topic of the lanes.
    pub(crate) fn lanes(&self) -> String {
        format!("{}.lanes", self.namespace)
    }

    /// What a topic of the broker is: a slot's log, or a topic by the name that it has here; none for what is neither.
    pub(crate) fn read(&self, topic: &str) -> Option<Found> {
        if let Some(own) = topic.strip_prefix(&*self.namespace).and_then(|rest| rest.strip_prefix('.')) {
            if let Some(rest) = own.strip_prefix("slots.") {
                return slot(rest).map(Found::Single);
            }
            if let Some(slot) = own.strip_prefix("outcomes.") {
                return number(slot).map(|slot| Found::Single(LogId::Outcomes { slot }));
            }
            if own == "lanes" {
                return None;
            }
        }
        // The broker's own topics, as of committed offsets.
        if topic.starts_with("__") {
            return None;
        }
        let name = topic.strip_prefix(&*self.prefix)?;
        (!name.is_empty()).then(|| Found::Topic(ByteString::from(name)))
    }
}

/// See [`Names::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Single(LogId),
    Topic(ByteString),
}

fn slot(text: &str) -> Option<LogId> {
    let (slot, generation) = text.split_once('.')?;
    let (epoch, suffix) = generation.split_once('-')?;
    let suffix = (suffix.len() == 16).then(|| u64::from_str_radix(suffix, 16).ok())??;
    Some(LogId::Slot { slot: number(slot)?, epoch: number(epoch)?, suffix })
}

/// A number as it is written by [`Names::of_slot`], and in no other way.
fn number<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_logs() {
        let names = Names { namespace: "tidegate".to_owned(), prefix: "mesh.".to_owned() };
        let logs = [
            LogId::Slot { slot: 3, epoch: u64::MAX, suffix: 9 },
            LogId::Slot { slot: 0, epoch: 0, suffix: 0 },
            LogId::Outcomes { slot: 15 },
        ];
        for id in logs {
            let name = names.of_slot(&id).unwrap();
            assert!(!name.contains('_') && name.len() < 249, "{name}");
            assert_eq!(names.read(&name), Some(Found::Single(id)));
        }
        assert_eq!(names.topic("orders_eu"), "mesh.orders_eu");
        assert_eq!(names.read("mesh.orders_eu"), Some(Found::Topic("orders_eu".into())));
    }

    #[test]
    fn other_topics_are_nobodys_logs() {
        let names = Names { namespace: "tidegate".to_owned(), prefix: String::new() };
        for other in
            ["__consumer_offsets", "tidegate.lanes", "tidegate.slots.1", "tidegate.slots.01.0-0000000000000000"]
        {
            assert_eq!(names.read(other), None, "{other}");
        }
        assert_eq!(names.read("tidegate.dead.x"), Some(Found::Topic("tidegate.dead.x".into())));
        let names = Names { namespace: "tidegate".to_owned(), prefix: "mesh.".to_owned() };
        assert_eq!(names.read("orders"), None);
    }
}
