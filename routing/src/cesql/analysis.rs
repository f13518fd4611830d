//! What an event must have to pass an expression, as far as an index can use it.
//!
//! An expression is passed where its value is `true` without an error. So every operand of an outermost `AND` was `true`
//! without an error, and at least one of an `OR`, because those that fail make the whole fail.

use super::ast::{Attribute, Comparison, Connective, Literal, Node, NodeId, Tree};

pub(super) fn required_equalities(tree: &Tree) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    collect_equalities(tree, tree.root(), &mut found);
    found
}

fn collect_equalities<'t>(tree: &'t Tree, id: NodeId, found: &mut Vec<(&'t str, &'t str)>) {
    match tree.node(id) {
        Node::Connective(Connective::And, operands) => {
            operands.iter().for_each(|operand| collect_equalities(tree, *operand, found));
        }
        node => found.extend(equality(tree, node)),
    }
}

/// The attribute and the text that it must equal.
fn equality<'t>(tree: &'t Tree, node: &'t Node) -> Option<(&'t str, &'t str)> {
    let Node::Comparison(Comparison::Equal, left, right) = node else { return None };
    match (tree.node(*left), tree.node(*right)) {
        // The type on the right decides, so the attribute is compared as a String whatever its type.
        (Node::Attribute(attribute), Node::Literal(Literal::String(text))) => Some((&attribute.name, text)),
        // An extension may be of another type, to which the text would be cast; the others are Strings.
        (Node::Literal(Literal::String(text)), Node::Attribute(Attribute { name, core: true })) => Some((name, text)),
        _ => None,
    }
}

pub(super) fn required_values<'t>(tree: &'t Tree, attribute: &str) -> Option<Vec<&'t str>> {
    values(tree, tree.root(), attribute)
}

fn values<'t>(tree: &'t Tree, id: NodeId, name: &str) -> Option<Vec<&'t str>> {
    match tree.node(id) {
        // Each list holds, so the shortest says most.
        Node::Connective(Connective::And, operands) => {
            operands.iter().filter_map(|operand| values(tree, *operand, name)).min_by_key(Vec::len)
        }
        Node::Connective(Connective::Or, operands) => {
            let mut all = Vec::new();
            for operand in operands {
                all.extend(values(tree, *operand, name)?);
            }
            all.sort_unstable();
            all.dedup();
            Some(all)
        }
        Node::In { operand, elements, negated: false } => {
            // The type of the left decides: one of the specification's attributes is a String.
            let Node::Attribute(Attribute { name: found, core: true }) = tree.node(*operand) else { return None };
            let texts = elements.iter().map(|element| match tree.node(*element) {
                Node::Literal(Literal::String(text)) => Some(&**text),
                Node::Literal(Literal::Boolean(true)) => Some("true"),
                Node::Literal(Literal::Boolean(false)) => Some("false"),
                _ => None,
            });
            let mut texts: Vec<_> = (**found == *name).then(|| texts.collect::<Option<_>>()).flatten()?;
            texts.sort_unstable();
            texts.dedup();
            Some(texts)
        }
        node => equality(tree, node).filter(|(found, _)| *found == name).map(|(_, text)| vec![text]),
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
