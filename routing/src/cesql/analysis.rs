//! What an expression asks the event for, and what an event must have to pass it, as far as an index can use it.
//!
//! An expression is passed where its value is `true` without an error. So every operand of an outermost `AND` was `true`
//! without an error, and at least one of an `OR`, because those that fail make the whole fail.

use super::ast::{Attribute, Comparison as Operator, Connective, Literal, Node, NodeId, Tree};
use crate::demand::{Alternatives, Comparison, Demand, either, strictest};

/// What an event must meet; each of the alternatives holds.
pub(super) fn demands(tree: &Tree) -> Vec<Alternatives> {
    let mut found = Vec::new();
    collect(tree, tree.root(), &mut found);
    found
}

fn collect(tree: &Tree, id: NodeId, found: &mut Vec<Alternatives>) {
    match tree.node(id) {
        Node::Connective(Connective::And, operands) => {
            operands.iter().for_each(|operand| collect(tree, *operand, found));
        }
        Node::Connective(Connective::Or, operands) => {
            let branch = |operand: &NodeId| {
                let mut all = Vec::new();
                collect(tree, *operand, &mut all);
                strictest(all)
            };
            found.extend(either(operands.iter().map(branch)));
        }
        Node::Like { operand, pattern, negated: false } => {
            // Whatever the type of an attribute is, `LIKE` looks at its text.
            let Node::Attribute(attribute) = tree.node(*operand) else { return };
            let (first, last) = pattern.ends();
            let exact = pattern.exact().map(|text| (Comparison::Exact, text));
            let tests = exact.into_iter().chain(first.map(|text| (Comparison::Prefix, text)));
            for (comparison, text) in tests.chain(last.map(|text| (Comparison::Suffix, text))) {
                found.extend(Demand::new(comparison, &attribute.name, text).map(|demand| vec![demand]));
            }
        }
        Node::In { operand, elements, negated: false } => {
            // The type of the left decides: one of the specification's attributes is a String.
            let Node::Attribute(Attribute { name, core: true }) = tree.node(*operand) else { return };
            let demand = |element: &NodeId| {
                let text = match tree.node(*element) {
                    Node::Literal(Literal::String(text)) => &**text,
                    Node::Literal(Literal::Boolean(true)) => "true",
                    Node::Literal(Literal::Boolean(false)) => "false",
                    _ => return None,
                };
                Demand::new(Comparison::Exact, name, text).map(|demand| vec![demand])
            };
            found.extend(either(elements.iter().map(demand)));
        }
        Node::Comparison(Operator::Equal, left, right) => {
            let (attribute, text) = match (tree.node(*left), tree.node(*right)) {
                // The type on the right decides, so the attribute is compared as a String whatever its type.
                (Node::Attribute(attribute), Node::Literal(Literal::String(text))) => (attribute, text),
                // An extension may be of another type, to which the text would be cast; the others are Strings.
                (Node::Literal(Literal::String(text)), Node::Attribute(attribute @ Attribute { core: true, .. })) => {
                    (attribute, text)
                }
                _ => return,
            };
            found.extend(Demand::new(Comparison::Exact, &attribute.name, text).map(|demand| vec![demand]));
        }
        _ => {}
    }
}

/// The attributes that a node asks for, in the order of the text, each once.
pub(super) fn attributes(tree: &Tree, id: NodeId) -> Vec<&str> {
    let mut found = Vec::new();
    collect_attributes(tree, id, &mut found);
    found
}

fn collect_attributes<'t>(tree: &'t Tree, id: NodeId, found: &mut Vec<&'t str>) {
    let node = tree.node(id);
    if let Node::Attribute(attribute) | Node::Exists(attribute) = node
        && !found.contains(&&*attribute.name)
    {
        found.push(&attribute.name);
    }
    node.children(|id| tree.node(id), |child, _| collect_attributes(tree, child, found));
}
