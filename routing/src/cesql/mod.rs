//! CloudEvents SQL (CESQL) 1.0.0: expressions over the attributes of an event.
//!
//! An [`Expression`] is parsed once, within limits, and then evaluated against many events. Evaluation always ends, has
//! no side effects, and gives a value *and* the errors that occurred (CESQL 3.3); as a filter an event passes only where
//! the value is the Boolean `true` and there is no error (CESQL 1.2). The payload cannot be seen (CESQL 1).
//!
//! # Where the specification leaves a choice
//!
//! - **`AND`, `OR` and `XOR` together.** They have one precedence (CESQL 3.4). The text evaluates from left to right
//!   (3.6), its grammar file groups to the right. The text holds here: `a AND b OR c` is `(a AND b) OR c`. Because others
//!   read it otherwise, such an expression has an [`Objection`], and subscriptions refuse it.
//! - **`NOT` binds tighter than comparisons** (3.4), so `NOT type = 'x'` is `(NOT type) = 'x'`, which no event passes.
//!   That too is an objection.
//! - **A sign belongs to a literal** only where an operand is expected: `1-1` is a subtraction with or without blanks, and
//!   `-2147483648` is a literal (2.2).
//! - **Overflow** of `+`, `-`, `*`, `/` and the unary minus, about which 3.4 is silent, is a math error with the value 0.
//!   The remainder of the least Integer and -1 is 0 and no error.
//! - **Quotes.** `\'` within single quotes and `\"` within double quotes are the quote (2.2); a doubled quote is one as well,
//!   as the grammar file allows. A backslash before anything else stands for itself, two of them for two.
//! - **`LIKE`.** A backslash escapes `%` and `_` (3.4.3), anywhere else it stands for itself.
//! - **Attribute names** are read without regard to case, as keywords are (2.1); the grammar names lower case only.
//! - **What follows an error.** An operator or function with an operand that failed gives the zero value of its own type
//!   and is not computed (3.3): `1 != 1 / 0` is `false`. [`Expression::evaluate`] still evaluates the other operands, so that
//!   every error is told; [`Expression::matches`] stops at the first (4.1). `AND` takes an operand that failed for `false`
//!   and stops there, `OR` takes it for `false` and goes on.
//! - **`IN`** evaluates all elements, for a set has no order (3.1); one that cannot be cast is an error.
//! - **Characters** are Unicode scalar values: in `LENGTH`, positions and `_` alike.
//! - **A function that does not exist** is `false` and an error when evaluated (3.5), and an objection before that (3.3).

mod analysis;
mod ast;
mod builtin;
mod evaluate;
mod functions;
mod lexer;
mod parser;
mod pattern;
mod print;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use bytestring::ByteString;
use tidegate_schemas::Event;

pub use functions::{Failure, Function, Functions, Parameter, RegistrationError};
pub use parser::{Objection, ParseError, Position};
pub use value::{Type, Value};

use ast::Tree;

use crate::demand::Alternatives;

/// The error types of CESQL 3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The text is no expression; only ever the kind of a [`ParseError`].
    Parse,
    /// Division by zero, or a result that is no Integer of 32 bits.
    Math,
    /// A value cannot be cast to the type that is needed.
    Cast,
    /// The event does not have the attribute.
    MissingAttribute,
    /// There is no function of that name that takes so many arguments.
    MissingFunction,
    /// A function reported a fault.
    FunctionEvaluation,
    /// Any other error.
    Generic,
}

/// An error that occurred while an expression was evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluationError {
    /// Its type.
    pub kind: ErrorKind,
    /// The part of the expression's text that it is about, in bytes.
    pub span: Range<usize>,
    /// What happened, in words.
    pub message: String,
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for EvaluationError {}

/// What evaluating an expression gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation<'a> {
    /// The value, which there always is.
    pub value: Value<'a>,
    /// The errors in the order in which they occurred; none where all went well.
    pub errors: Vec<EvaluationError>,
}

/// Why an event does not pass an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingPart<'a> {
    /// The text of the part of the expression that decided.
    pub text: &'a str,
    /// The names of the attributes that this part asks for, in lower case, in the order of its text, each once.
    pub attributes: Vec<&'a str>,
    /// The value of this part.
    pub value: Value<'a>,
    /// The errors that occurred in it.
    pub errors: Vec<EvaluationError>,
}

/// A parsed expression. Cloning shares it.
///
/// Two expressions are equal where they have the same structure, whatever their blanks, parentheses and letter case.
///
/// ```
/// use tidegate_routing::cesql::{ErrorKind, Expression};
/// use tidegate_schemas::Event;
///
/// let expression = Expression::parse("type LIKE 'com.example.%' AND region = 'eu'").unwrap();
/// let event = Event::builder("1", "/shop", "com.example.placed").build().unwrap();
/// assert!(!expression.matches(&event));
/// assert_eq!(expression.evaluate(&event).errors[0].kind, ErrorKind::MissingAttribute);
/// ```
#[derive(Clone)]
pub struct Expression(Arc<Inner>);

struct Inner {
    text: ByteString,
    tree: Tree,
    /// The functions that the calls of the tree mean, by their index.
    functions: Box<[Arc<Function>]>,
    objections: Box<[Objection]>,
}

impl Expression {
    /// Reads an expression that may use the built-in functions.
    ///
    /// Fails at the first fault of syntax, and where the text exceeds the limits `CESQL_BYTES`, `CESQL_DEPTH` or
    /// `CESQL_NODES` of [`tidegate_schemas::limits`].
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::parse_with(text, Functions::builtin())
    }

    /// Reads an expression that may use the functions of that registry.
    pub fn parse_with(text: &str, functions: &Functions) -> Result<Self, ParseError> {
        let parsed = parser::parse(text, functions)?;
        Ok(Self(Arc::new(Inner {
            text: text.into(),
            tree: parsed.tree,
            functions: parsed.functions.into(),
            objections: parsed.objections.into(),
        })))
    }

    /// The text as it was written. What [`Display`](fmt::Display) writes is the canonical form instead.
    pub fn text(&self) -> &ByteString {
        &self.0.text
    }

    /// Evaluates the whole expression and tells every error on the way.
    pub fn evaluate<'a>(&'a self, event: &'a Event) -> Evaluation<'a> {
        evaluate::evaluate(&self.0.tree, &self.0.functions, event)
    }

    /// Whether the event passes the expression as a filter: the value is `true` and there is no error (CESQL 1.2).
    /// Evaluation stops at the first error.
    pub fn matches(&self, event: &Event) -> bool {
        evaluate::matches(&self.0.tree, &self.0.functions, event)
    }

    /// The part of the expression that keeps the event from passing; nothing where it passes. In a conjunction that is
    /// its first operand that is not `true` without an error, elsewhere it is the whole.
    pub fn failing_part<'a>(&'a self, event: &'a Event) -> Option<FailingPart<'a>> {
        let Inner { text, tree, functions, .. } = &*self.0;
        let (part, Evaluation { value, errors }) = evaluate::failing_part(tree, functions, event)?;
        Some(FailingPart { text: &text[tree.span(part)], attributes: analysis::attributes(tree, part), value, errors })
    }

    /// The names of the attributes that the expression asks for, in lower case, in the order of its text, each once.
    pub fn attributes(&self) -> Vec<&str> {
        analysis::attributes(&self.0.tree, self.0.tree.root())
    }

    /// What is legal in the language and yet hardly meant: to be told to whoever writes the expression.
    pub fn objections(&self) -> &[Objection] {
        &self.0.objections
    }

    /// What an event must have to pass, as far as an index can use it. All of them hold.
    pub(crate) fn demands(&self) -> Vec<Alternatives> {
        analysis::demands(&self.0.tree)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.tree == other.0.tree
    }
}

impl Eq for Expression {}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.tree.hash(state);
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Expression").field(&self.0.text).finish()
    }
}

/// The expression in its canonical form: keywords and functions in upper case, single blanks, and parentheses where the
/// structure or a reader needs them. Parsing that gives an equal expression, if it is not longer than `CESQL_BYTES`.
impl fmt::Display for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::print(&self.0.tree, formatter)
    }
}

impl std::str::FromStr for Expression {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}
