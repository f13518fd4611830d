//! The canonical form of an expression.

use std::fmt::{Formatter, Result, Write};

use super::ast::{Literal, Node, NodeId, Tree};

pub(super) fn print(tree: &Tree, out: &mut Formatter<'_>) -> Result {
    Printer { tree, out }.node(tree.root())
}

struct Printer<'p, 'f> {
    tree: &'p Tree,
    out: &'p mut Formatter<'f>,
}

impl Printer<'_, '_> {
    fn node(&mut self, id: NodeId) -> Result {
        let mut parentheses = Vec::new();
        let node = self.tree.node(id);
        node.children(|id| self.tree.node(id), |_, in_parentheses| parentheses.push(in_parentheses));
        let mut parentheses = parentheses.into_iter();
        let mut child = |printer: &mut Self, id: NodeId| printer.child(id, parentheses.next().unwrap_or(false));
        match node {
            Node::Literal(Literal::Boolean(flag)) => self.out.write_str(if *flag { "TRUE" } else { "FALSE" }),
            Node::Literal(Literal::Integer(number)) => write!(self.out, "{number}"),
            Node::Literal(Literal::String(text)) => self.text(text),
            Node::Attribute(attribute) => self.out.write_str(&attribute.name),
            Node::Exists(attribute) => write!(self.out, "EXISTS {}", attribute.name),
            Node::Not(operand) => {
                self.out.write_str("NOT ")?;
                child(self, *operand)
            }
            Node::Negate(operand) => {
                // A number directly behind it would take it for its sign.
                let number = matches!(self.tree.node(*operand), Node::Literal(Literal::Integer(0..)));
                self.out.write_str(if number { "- " } else { "-" })?;
                child(self, *operand)
            }
            Node::Connective(connective, operands) => {
                for (index, operand) in operands.iter().enumerate() {
                    if index > 0 {
                        write!(self.out, " {} ", connective.symbol())?;
                    }
                    child(self, *operand)?;
                }
                Ok(())
            }
            Node::Comparison(comparison, left, right) => {
                child(self, *left)?;
                write!(self.out, " {} ", comparison.symbol())?;
                child(self, *right)
            }
            Node::Arithmetic(arithmetic, left, right) => {
                child(self, *left)?;
                write!(self.out, " {} ", arithmetic.symbol())?;
                child(self, *right)
            }
            Node::Like { operand, pattern, negated } => {
                child(self, *operand)?;
                self.out.write_str(if *negated { " NOT LIKE " } else { " LIKE " })?;
                self.text(&pattern.to_text())
            }
            Node::In { operand, elements, negated } => {
                child(self, *operand)?;
                self.out.write_str(if *negated { " NOT IN " } else { " IN " })?;
                self.list(elements)
            }
            Node::Call { name, arguments, .. } => {
                self.out.write_str(name)?;
                self.list(arguments)
            }
        }
    }

    fn child(&mut self, id: NodeId, in_parentheses: bool) -> Result {
        if !in_parentheses {
            return self.node(id);
        }
        self.out.write_char('(')?;
        self.node(id)?;
        self.out.write_char(')')
    }

    fn list(&mut self, items: &[NodeId]) -> Result {
        self.out.write_char('(')?;
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.write_str(", ")?;
            }
            self.node(*item)?;
        }
        self.out.write_char(')')
    }

    fn text(&mut self, text: &str) -> Result {
        // A quote behind an odd number of backslashes cannot stand between quotes of its own kind. No literal can hold
        // both kinds so.
        let quote = if has_odd_escape(text, '\'') { '"' } else { '\'' };
        self.out.write_char(quote)?;
        for character in text.chars() {
            if character == quote {
                self.out.write_char('\\')?;
            }
            self.out.write_char(character)?;
        }
        self.out.write_char(quote)
    }
}

/// Whether the quote stands somewhere behind an odd number of backslashes.
fn has_odd_escape(text: &str, quote: char) -> bool {
    let mut odd = false;
    for character in text.chars() {
        if character == quote && odd {
            return true;
        }
        odd = character == '\\' && !odd;
    }
    false
}
