//! The names of this broker: of streams, queues and exchanges, and which log they belong to. Nothing else makes such names.
//!
//! | what | name |
//! |---|---|
//! | partition 2 of topic `orders.eu` | stream `orders.eu-2`, as RabbitMQ's super streams name theirs |
//! | generation of a slot | stream `NAMESPACE~slot~SLOT~EPOCH~SUFFIX` |
//! | outcomes of a slot | stream `NAMESPACE~outcomes~SLOT` |
//! | which logs there are | stream `NAMESPACE~logs` |
//! | how far a log was trimmed | stream `NAME~low` |
//! | lanes | exchanges `NAMESPACE~lane` and `NAMESPACE~lanes` |
//!
//! A topic's name has no `~`, so no two of these meet.

use tidegate_backbone::{LogId, NodeId};

/// Makes names.
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

    /// The stream of a log.
    pub(crate) fn stream(&self, id: &LogId) -> String {
        let namespace = &self.namespace;
        match id {
            LogId::Topic { topic, partition } => format!("{}{topic}-{partition}", self.topic_prefix),
            LogId::Slot { slot, epoch, suffix } => format!("{namespace}~slot~{slot}~{epoch}~{suffix:016x}"),
            LogId::Outcomes { slot } => format!("{namespace}~outcomes~{slot}"),
        }
    }

    /// The stream that lists the logs.
    pub(crate) fn logs(&self) -> String {
        format!("{}~logs", self.namespace)
    }

    /// Where messages to one node go.
    pub(crate) fn lane(&self) -> String {
        format!("{}~lane", self.namespace)
    }

    /// Where messages to all nodes go.
    pub(crate) fn lanes(&self) -> String {
        format!("{}~lanes", self.namespace)
    }
}

/// The stream that remembers how far the log of that stream was trimmed.
pub(crate) fn low(stream: &str) -> String {
    format!("{stream}~low")
}

/// The key by which a node's messages are found.
pub(crate) fn key(node: NodeId) -> String {
    node.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_streams() {
        let names = Names::new("ns", "p.");
        let slot = LogId::Slot { slot: 3, epoch: 7, suffix: 0xab };
        assert_eq!(names.stream(&slot), "ns~slot~3~7~00000000000000ab");
        assert_eq!(names.stream(&LogId::Outcomes { slot: 3 }), "ns~outcomes~3");
        assert_eq!(names.stream(&LogId::Topic { topic: "a.b".into(), partition: 0 }), "p.a.b-0");
        assert_eq!(low("p.a.b-0"), "p.a.b-0~low");
    }
}
