//! A radix tree: the texts of a set that a value begins with, or ends with, in steps of the value's length.

/// The rules under texts. Texts that are looked for at the end of a value are held and walked from their end.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    direction: Direction,
}

/// The end of a value at which the texts stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Direction {
    #[default]
    Beginning,
    End,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The bytes that lead here from the node above, in the direction of the walk.
    label: Box<[u8]>,
    /// The nodes below by the first byte of their label, in ascending order.
    below: Vec<(u8, u32)>,
    rules: Vec<u32>,
}

impl Tree {
    pub(super) fn new(direction: Direction) -> Self {
        Self { nodes: Vec::new(), direction }
    }

    /// Adds a rule under a text; once, when it comes several times in a row.
    pub(super) fn insert(&mut self, text: &str, rule: u32) {
        let mut rest = text.as_bytes().to_vec();
        if self.direction == Direction::End {
            rest.reverse();
        }
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        let mut rest = &rest[..];
        while let Some(first) = rest.first() {
            match self.nodes[at].below.binary_search_by_key(first, |(byte, _)| *byte) {
                Ok(found) => {
                    let child = self.nodes[at].below[found].1 as usize;
                    let label = &self.nodes[child].label;
                    let shared = label.iter().zip(rest).take_while(|(left, right)| left == right).count();
                    if shared < label.len() {
                        self.split(child, shared);
                    }
                    at = child;
                    rest = &rest[shared..];
                }
                Err(place) => {
                    let child = self.push(Node { label: rest.into(), ..Node::default() });
                    self.nodes[at].below.insert(place, (*first, child));
                    at = child as usize;
                    rest = &[];
                }
            }
        }
        let rules = &mut self.nodes[at].rules;
        if rules.last() != Some(&rule) {
            rules.push(rule);
        }
    }

    fn push(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).expect("the texts of all subscriptions are far fewer than 32 bits count")
    }

    /// Ends a label after so many bytes and puts what it led to below.
    fn split(&mut self, node: usize, shared: usize) {
        let upper = Node { label: self.nodes[node].label[..shared].into(), ..Node::default() };
        let mut lower = std::mem::replace(&mut self.nodes[node], upper);
        lower.label = lower.label[shared..].into();
        let first = lower.label[0];
        let lower = self.push(lower);
        self.nodes[node].below.push((first, lower));
    }

    /// Calls `found` with the rules under each text that the value begins, or ends, with.
    pub(super) fn search(&self, value: &str, mut found: impl FnMut(&[u32])) {
        let value = value.as_bytes();
        let Some(mut node) = self.nodes.first() else { return };
        let mut at = 0;
        loop {
            found(&node.rules);
            let Some(first) = self.byte(value, at) else { return };
            let Ok(index) = node.below.binary_search_by_key(&first, |(byte, _)| *byte) else { return };
            node = &self.nodes[node.below[index].1 as usize];
            let fits = match self.direction {
                Direction::Beginning => value[at..].starts_with(&node.label),
                Direction::End => {
                    let rest = &value[..value.len() - at];
                    node.label.len() <= rest.len()
                        && rest.iter().rev().zip(&node.label).all(|(left, right)| left == right)
                }
            };
            if !fits {
                return;
            }
            at += node.label.len();
        }
    }

    fn byte(&self, value: &[u8], at: usize) -> Option<u8> {
        match self.direction {
            Direction::Beginning => value.get(at),
            Direction::End => value.len().checked_sub(at + 1).and_then(|index| value.get(index)),
        }
        .copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_search_finds_what_comparing_each_finds(
            texts in prop::collection::vec("[abé]{0,4}", 0..20),
            value in "[abé]{0,6}",
            at_end: bool,
        ) {
            let direction = if at_end { Direction::End } else { Direction::Beginning };
            let mut tree = Tree::new(direction);
            for (rule, text) in (0..).zip(&texts) {
                tree.insert(text, rule);
            }
            let mut found = Vec::new();
            tree.search(&value, |rules| found.extend_from_slice(rules));
            found.sort_unstable();
            let fits = |text: &str| if at_end { value.ends_with(text) } else { value.starts_with(text) };
            let naive: Vec<u32> = (0..).zip(&texts).filter(|(_, text)| fits(text)).map(|(rule, _)| rule).collect();
            prop_assert_eq!(found, naive);
        }
    }
}
