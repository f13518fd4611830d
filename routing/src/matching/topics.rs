//! Patterns with wildcards by their segments, so that a topic meets those only that could match it.

use std::collections::HashMap;

use bytestring::ByteString;

use crate::topic::{TopicName, TopicPattern};

/// A value under each pattern with wildcards.
#[derive(Clone, Debug)]
pub(super) struct Patterns<T> {
    nodes: Vec<Node>,
    values: Vec<T>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The nodes behind a segment that is written out.
    named: HashMap<ByteString, usize>,
    /// The node behind `*`.
    any: Option<usize>,
    /// The value of the pattern that goes on with `**`.
    rest: Option<usize>,
    /// The value of the pattern that ends here.
    end: Option<usize>,
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], values: Vec::new() }
    }
}

impl<T> Patterns<T> {
    /// The value of a pattern, made where there is none yet.
    pub(super) fn entry(&mut self, pattern: &TopicPattern, make: impl FnOnce() -> T) -> &mut T {
        let mut at = 0;
        let mut rest = false;
        for segment in pattern.as_str().split('.') {
            let known = match segment {
                "**" => {
                    rest = true;
                    break;
                }
                "*" => self.nodes[at].any,
                name => self.nodes[at].named.get(name).copied(),
            };
            at = known.unwrap_or_else(|| {
                let below = self.nodes.len();
                self.nodes.push(Node::default());
                match segment {
                    "*" => self.nodes[at].any = Some(below),
                    name => {
                        self.nodes[at].named.insert(name.into(), below);
                    }
                }
                below
            });
        }
        let node = &mut self.nodes[at];
        let slot = if rest { &mut node.rest } else { &mut node.end };
        let index = *slot.get_or_insert_with(|| {
            self.values.push(make());
            self.values.len() - 1
        });
        &mut self.values[index]
    }

    /// The same patterns with other values.
    pub(super) fn map<U>(self, change: impl FnMut(T) -> U) -> Patterns<U> {
        Patterns { nodes: self.nodes, values: self.values.into_iter().map(change).collect() }
    }

    /// Calls `found` with the value of each pattern that matches the topic, until it gives true; whether it did.
    pub(super) fn any(&self, topic: &TopicName, mut found: impl FnMut(&T) -> bool) -> bool {
        if self.values.is_empty() || topic.is_reserved() || topic.is_dead_letter() {
            return false;
        }
        self.walk(0, topic.as_str(), &mut found)
    }

    /// Walks on with what is left of a topic, which is not empty. The depth is that of the patterns.
    fn walk(&self, at: usize, topic: &str, found: &mut impl FnMut(&T) -> bool) -> bool {
        let node = &self.nodes[at];
        if node.rest.is_some_and(|value| found(&self.values[value])) {
            return true;
        }
        let (segment, rest) = match topic.split_once('.') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (topic, None),
        };
        let below = [node.named.get(segment).copied(), node.any];
        below.into_iter().flatten().any(|below| match rest {
            Some(rest) => self.walk(below, rest, found),
            None => self.nodes[below].end.is_some_and(|value| found(&self.values[value])),
        })
    }
}
