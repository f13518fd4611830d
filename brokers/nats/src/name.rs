//! The names of this broker: of streams and subjects, and which log they belong to. Nothing else makes such names.
//!
//! | what | stream | subject |
//! |---|---|---|
//! | topic `orders.eu` | `orders~eu` | `orders.eu.PARTITION` |
//! | generation of a slot | `NAMESPACE~~slot~SLOT~EPOCH~SUFFIX` | `NAMESPACE.slot.SLOT.EPOCH.SUFFIX` |
//! | outcomes of a slot | `NAMESPACE~~outcomes~SLOT` | `NAMESPACE.outcomes.SLOT` |
//! | how far topics were trimmed | `NAMESPACE~~trims` | `NAMESPACE.trims.TOPIC.PARTITION` |
//! | lanes | none | `NAMESPACE.lane.NODE`, `NAMESPACE.lane.all` |
//!
//! A topic's name has no `~` and no empty segment, so no two of these meet.

use bytestring::ByteString;
use tidegate_backbone::{LogId, NodeId};

/// Makes names and reads them.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    namespace: String,
    topic_prefix: String,
}

impl Names {
    /// Both were checked with the options.
    pub(crate) fn new(namespace: &str, topic_prefix: &str) -> Self {
        Self { namespace: namespace.to_owned(), topic_prefix: topic_prefix.to_owned() }
    }

    /// The topic's name on the broker.
    pub(crate) fn topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.topic_prefix)
    }

    /// The stream of a topic.
    pub(crate) fn topic_stream(&self, topic: &str) -> String {
        self.topic(topic).replace('.', "~")
    }

    /// The subject of a topic's partition.
    pub(crate) fn topic_subject(&self, topic: &str, partition: u32) -> String {
        format!("{}{topic}.{partition}", self.topic_prefix)
    }

    /// The stream of a log that is no topic's partition, and its subject.
    pub(crate) fn single(&self, id: &LogId) -> Option<(String, String)> {
        let namespace = &self.namespace;
        match id {
            LogId::Topic { .. } => None,
            LogId::Slot { slot, epoch, suffix } => Some((
                format!("{namespace}~~slot~{slot}~{epoch}~{suffix:016x}"),
                format!("{namespace}.slot.{slot}.{epoch}.{suffix:016x}"),
            )),
            LogId::Outcomes { slot } => {
                Some((format!("{namespace}~~outcomes~{slot}"), format!("{namespace}.outcomes.{slot}")))
            }
        }
    }

    /// What a stream of ours says in its description: nobody else's stream is taken for one of ours by its name alone.
    pub(crate) fn description(&self) -> String {
        format!("Tidegate, namespace {}", self.namespace)
    }

    /// The logs of a stream of ours, by its name and subjects.
    pub(crate) fn logs(&self, stream: &str, subjects: &[String]) -> Vec<LogId> {
        if let Some(rest) = stream.strip_prefix(&format!("{}~~", self.namespace)) {
            let parts: Vec<&str> = rest.split('~').collect();
            let id = match parts[..] {
                ["slot", slot, epoch, suffix] => {
                    let suffix = u64::from_str_radix(suffix, 16).ok();
                    slot.parse().ok().zip(epoch.parse().ok()).zip(suffix).map(|((slot, epoch), suffix)| LogId::Slot {
                        slot,
                        epoch,
                        suffix,
                    })
                }
                ["outcomes", slot] => slot.parse().ok().map(|slot| LogId::Outcomes { slot }),
                _ => None,
            };
            // Only what would be written so.
            return id.into_iter().filter(|id| self.single(id).is_some_and(|(name, _)| name == stream)).collect();
        }
        let physical = stream.replace('~', ".");
        let Some(topic) = physical.strip_prefix(&self.topic_prefix) else { return Vec::new() };
        let topic = ByteString::from(topic);
        let partitions = u32::try_from(subjects.len()).unwrap_or(0);
        let fits = |partition: u32| subjects.contains(&self.topic_subject(&topic, partition));
        if topic.is_empty() || !(0..partitions).all(fits) {
            return Vec::new();
        }
        (0..partitions).map(|partition| LogId::Topic { topic: topic.clone(), partition }).collect()
    }

    /// The stream that remembers how far topics were trimmed, and the subjects that it takes.
    pub(crate) fn trims(&self) -> (String, String) {
        (format!("{}~~trims", self.namespace), format!("{}.trims.>", self.namespace))
    }

    /// Where it is remembered how far a partition was trimmed.
    pub(crate) fn trim(&self, topic: &str, partition: u32) -> String {
        format!("{}.trims.{}.{partition}", self.namespace, self.topic(topic))
    }

    /// The same of all partitions of a topic.
    pub(crate) fn trims_of(&self, topic: &str) -> String {
        format!("{}.trims.{}.*", self.namespace, self.topic(topic))
    }

    /// Where messages to a node go.
    pub(crate) fn lane(&self, node: NodeId) -> String {
        format!("{}.lane.{node}", self.namespace)
    }

    /// Where messages to every node go.
    pub(crate) fn lanes(&self) -> String {
        format!("{}.lane.all", self.namespace)
    }

    /// Where nobody receives.
    pub(crate) fn nobody(&self) -> String {
        format!("{}.lane.nobody", self.namespace)
    }
}

/// Whether text may be a namespace: it stands in names of streams and is one token of a subject.
pub(crate) fn is_namespace(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 32
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Whether text may stand before the names of topics.
pub(crate) fn is_topic_prefix(text: &str) -> bool {
    text.len() <= 64
        && !text.starts_with('.')
        && !text.contains("..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_made() {
        let names = Names::new("tidegate", "prod.");
        let single = [
            LogId::Slot { slot: 0, epoch: 0, suffix: 0 },
            LogId::Slot { slot: 15, epoch: u64::MAX, suffix: 0xabc },
            LogId::Outcomes { slot: 3 },
        ];
        for id in single {
            let (stream, subject) = names.single(&id).unwrap();
            assert_eq!(names.logs(&stream, &[subject]), [id]);
        }
        let subjects: Vec<String> = (0..3).map(|partition| names.topic_subject("orders.eu", partition)).collect();
        assert_eq!(subjects[2], "prod.orders.eu.2");
        let logs: Vec<LogId> = (0..3).map(|partition| LogId::Topic { topic: "orders.eu".into(), partition }).collect();
        assert_eq!(names.topic_stream("orders.eu"), "prod~orders~eu");
        assert_eq!(names.logs("prod~orders~eu", &subjects), logs);
    }

    #[test]
    fn what_is_not_ours_is_no_log() {
        let names = Names::new("tidegate", "");
        for (stream, subjects) in [
            ("orders", vec!["orders.>"]),
            ("orders", vec!["orders.0", "orders.2"]),
            ("orders", vec!["other.0"]),
            ("tidegate~~trims", vec!["tidegate.trims.>"]),
            ("tidegate~~slot~0~0~0", vec!["x"]),
            ("tidegate~~outcomes~01", vec!["x"]),
        ] {
            let subjects: Vec<String> = subjects.into_iter().map(str::to_owned).collect();
            assert_eq!(names.logs(stream, &subjects), [], "{stream} {subjects:?}");
        }
        assert_eq!(Names::new("a", "b").logs("orders", &["orders.0".to_owned()]), []);
    }

    #[test]
    fn namespaces_and_prefixes() {
        assert!(is_namespace("tidegate-2_b") && is_topic_prefix("") && is_topic_prefix("team-a."));
        for bad in ["", "a.b", "a b", "a*", "ü", "~"] {
            assert!(!is_namespace(bad), "{bad}");
        }
        for bad in [".a", "a..b", "a>", "a b"] {
            assert!(!is_topic_prefix(bad), "{bad}");
        }
    }
}
