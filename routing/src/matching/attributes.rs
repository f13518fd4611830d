//! The rules that read the same topics, by what they demand of an event.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use bytestring::ByteString;
use tidegate_schemas::Event;
use xxhash_rust::xxh3::Xxh3;

use super::tree::{Direction, Tree};
use crate::demand::{Alternatives, Comparison, Demand};

/// Texts of subscriptions come from their owners, and values of events are only looked up, so nobody can fill one bucket
/// from outside, and the hash may be a fast one.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<Xxh3>>;

/// Rules by their demands. It never changes once it is built.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    attributes: Vec<Attribute>,
    /// The rules that demand nothing that could be looked up.
    others: Vec<u32>,
}

/// The demands of one attribute.
#[derive(Clone, Debug)]
struct Attribute {
    name: ByteString,
    exact: Map<ByteString, Vec<u32>>,
    prefixes: Tree,
    suffixes: Tree,
}

/// Collects rules before it is known which of their demands are rare.
#[derive(Debug, Default)]
pub(super) struct Builder {
    rules: Vec<(u32, Vec<Alternatives>)>,
}

impl Builder {
    pub(super) fn add(&mut self, rule: u32, demands: &[Alternatives]) {
        // A subscription that names a pattern twice is still one.
        if self.rules.last().is_none_or(|(last, _)| *last != rule) {
            self.rules.push((rule, demands.to_vec()));
        }
    }

    /// Puts each rule under those of its demands that the fewest rules share: where all want one type and each a subject of
    /// its own, the subject tells them apart.
    pub(super) fn build(self) -> Index {
        let mut counts: HashMap<&Demand, usize> = HashMap::new();
        for demand in self.rules.iter().flat_map(|(_, all)| all).flatten() {
            *counts.entry(demand).or_default() += 1;
        }
        let mut index = Index::default();
        for (rule, all) in &self.rules {
            // What counts is how many rules are asked where a text is met. Among texts that about as many share, the one
            // that is met more rarely is better.
            let cost = |alternatives: &&Alternatives| {
                let shared: usize = alternatives.iter().map(|demand| counts.get(demand).copied().unwrap_or(0)).sum();
                let open: usize = alternatives.iter().map(open_ends).sum();
                (shared.checked_ilog2(), open, shared)
            };
            match all.iter().min_by_key(cost) {
                Some(alternatives) => alternatives.iter().for_each(|demand| index.insert(demand, *rule)),
                None => index.others.push(*rule),
            }
        }
        index
    }
}

/// How little a demand says: nothing is as strict as a whole text, and a longer beginning is stricter than a short one.
fn open_ends(demand: &Demand) -> usize {
    const LONG_BYTES: usize = 256;
    match demand.comparison {
        Comparison::Exact => 0,
        Comparison::Prefix | Comparison::Suffix => LONG_BYTES.saturating_sub(demand.text.len()).max(1),
    }
}

impl Index {
    fn insert(&mut self, demand: &Demand, rule: u32) {
        let known = self.attributes.iter().position(|attribute| attribute.name == demand.attribute);
        let place = known.unwrap_or_else(|| {
            self.attributes.push(Attribute {
                name: demand.attribute.clone(),
                exact: Map::default(),
                prefixes: Tree::new(Direction::Beginning),
                suffixes: Tree::new(Direction::End),
            });
            self.attributes.len() - 1
        });
        let attribute = &mut self.attributes[place];
        match demand.comparison {
            Comparison::Exact => attribute.exact.entry(demand.text.clone()).or_default().push(rule),
            Comparison::Prefix => attribute.prefixes.insert(&demand.text, rule),
            Comparison::Suffix => attribute.suffixes.insert(&demand.text, rule),
        }
    }

    /// Calls `found` with rules that the event may pass; every rule that it passes is among them.
    pub(super) fn search(&self, event: &Event, mut found: impl FnMut(&[u32])) {
        found(&self.others);
        for attribute in &self.attributes {
            let Some(value) = event.attribute(&attribute.name) else { continue };
            let value: &str = match &value {
                Cow::Borrowed(text) => text,
                Cow::Owned(text) => text,
            };
            if let Some(rules) = attribute.exact.get(value) {
                found(rules);
            }
            attribute.prefixes.search(value, &mut found);
            attribute.suffixes.search(value, &mut found);
        }
    }

    /// The rules that every event must be compared with.
    #[cfg(test)]
    pub(super) fn others(&self) -> &[u32] {
        &self.others
    }
}
