//! The structure of an expression: nodes in one list, children before their parents, so that comparing, hashing and
//! dropping an expression need no recursion.

use std::hash::{Hash, Hasher};
use std::ops::Range;

use super::pattern::Pattern;

/// The index of a node in its [`Tree`].
pub(super) type NodeId = u32;

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    /// The part of the text of each node, which does not belong to what an expression is.
    pub(super) spans: Vec<Range<u32>>,
}

impl Tree {
    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    pub(super) fn span(&self, id: NodeId) -> Range<usize> {
        let span = &self.spans[id as usize];
        span.start as usize..span.end as usize
    }

    /// The outermost node.
    pub(super) fn root(&self) -> NodeId {
        NodeId::try_from(self.nodes.len() - 1).expect("the limit of nodes is far below 32 bits")
    }
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes
    }
}

impl Hash for Tree {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nodes.hash(state);
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    Literal(Literal),
    Attribute(Attribute),
    Exists(Attribute),
    Not(NodeId),
    Negate(NodeId),
    /// Operands that one operator joins from left to right; always two or more.
    Connective(Connective, Vec<NodeId>),
    Comparison(Comparison, NodeId, NodeId),
    Arithmetic(Arithmetic, NodeId, NodeId),
    Like {
        operand: NodeId,
        pattern: Pattern,
        negated: bool,
    },
    In {
        operand: NodeId,
        elements: Vec<NodeId>,
        negated: bool,
    },
    Call {
        /// In upper case.
        name: Box<str>,
        arguments: Vec<NodeId>,
        /// The index among the functions of the expression; nothing where there is no such function.
        function: Option<u32>,
    },
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Literal {
    Boolean(bool),
    Integer(i32),
    String(Box<str>),
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Attribute {
    /// In lower case.
    pub(super) name: Box<str>,
    /// Whether it is one of the specification, which are Strings all of them; others are extensions.
    pub(super) core: bool,
}

impl Attribute {
    pub(super) fn new(name: &str) -> Self {
        const CORE: [&str; 8] =
            ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];
        let name = name.to_ascii_lowercase();
        Self { core: CORE.contains(&name.as_str()), name: name.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Connective {
    And,
    Or,
    Xor,
}

impl Connective {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
            Self::Xor => "XOR",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Arithmetic {
    Multiply,
    Divide,
    Remainder,
    Add,
    Subtract,
}

impl Arithmetic {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Add => "+",
            Self::Subtract => "-",
        }
    }
}

/// How tightly operators bind, loosest first (CESQL 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Precedence {
    Connective,
    Comparison,
    Additive,
    Multiplicative,
    In,
    Like,
    Prefix,
    Primary,
}

impl Node {
    pub(super) fn precedence(&self) -> Precedence {
        match self {
            Self::Connective(..) => Precedence::Connective,
            Self::Comparison(..) => Precedence::Comparison,
            Self::Arithmetic(Arithmetic::Add | Arithmetic::Subtract, ..) => Precedence::Additive,
            Self::Arithmetic(..) => Precedence::Multiplicative,
            Self::In { .. } => Precedence::In,
            Self::Like { .. } => Precedence::Like,
            Self::Not(_) | Self::Negate(_) => Precedence::Prefix,
            Self::Literal(_) | Self::Attribute(_) | Self::Exists(_) | Self::Call { .. } => Precedence::Primary,
        }
    }

    /// Calls `visit` with each child and whether the canonical form puts it into parentheses.
    pub(super) fn children<'n>(&self, node: impl Fn(NodeId) -> &'n Node, mut visit: impl FnMut(NodeId, bool)) {
        let own = self.precedence();
        // `NOT a = b` is `(NOT a) = b`, which nobody reads in it.
        let surprising = |child: &Node| matches!(child, Self::Not(_));
        match self {
            Self::Literal(_) | Self::Attribute(_) | Self::Exists(_) => {}
            Self::Not(operand) | Self::Negate(operand) => {
                visit(*operand, node(*operand).precedence() < Precedence::Prefix);
            }
            Self::Connective(_, operands) => {
                operands.iter().for_each(|id| visit(*id, node(*id).precedence() == Precedence::Connective));
            }
            Self::Comparison(_, left, right) | Self::Arithmetic(_, left, right) => {
                visit(*left, node(*left).precedence() < own || surprising(node(*left)));
                visit(*right, node(*right).precedence() <= own || surprising(node(*right)));
            }
            Self::Like { operand, .. } => {
                visit(*operand, node(*operand).precedence() < own || surprising(node(*operand)));
            }
            Self::In { operand, elements, .. } => {
                visit(*operand, node(*operand).precedence() < own || surprising(node(*operand)));
                elements.iter().for_each(|id| visit(*id, false));
            }
            Self::Call { arguments, .. } => arguments.iter().for_each(|id| visit(*id, false)),
        }
    }
}
