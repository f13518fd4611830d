//! Filters in CEL, the Common Expression Language (cel.dev): expressions over the attributes and the data of an event.
//!
//! An [`Expression`] is checked and compiled once and then evaluated against many events. An event passes where the value
//! is `true`; where there is no value, because an attribute is missing or types do not fit, it does not pass.
//!
//! # What an expression sees
//!
//! One variable, `event`, whose fields are the attributes and the data:
//!
//! | field | type |
//! |---|---|
//! | `event.id`, `event.source`, `event.type`, `event.specversion` | `string` |
//! | `event.subject`, `event.time`, `event.datacontenttype`, `event.dataschema` | `string`, where the event has them; the time is the text as it came |
//! | `event.NAME`, an extension | `bool` and `int` for Boolean and Integer, `bytes` for Binary, `string` for all others |
//! | `event.data` of JSON | `map`, `list`, `string`, `bool`, `null`, `int` for a whole number (`uint` beyond its range) and `double` for others |
//! | `event.data` of text | `string` |
//! | `event.data` of anything else | `bytes` |
//!
//! `has(event.subject)` asks whether it is there. The order in which the members of an object are visited is not defined.
//!
//! # What is left out, and what is bounded
//!
//! The macros `has`, `all`, `exists`, `exists_one`, `map` and `filter` and the functions of the standard library are there,
//! but for `timestamp` and `duration`. The pattern of `matches` is a literal, so that it is compiled with the expression.
//! Names that do not exist are told when the expression is read, not when an event comes.
//!
//! The limits `CEL_BYTES`, `CEL_DEPTH`, `CEL_NODES` and `CEL_COMPREHENSIONS` of [`tidegate_schemas::limits`] bound the
//! expression, `CEL_PATTERN_BYTES` a compiled pattern. `CEL_STEPS` bounds one evaluation: whatever an operation copies or
//! visits is counted first, an element or 64 bytes being a step.

mod analysis;
mod check;
pub(crate) mod data;
mod runtime;
mod scan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ::cel::IdedExpr;
use bytestring::ByteString;
use tidegate_schemas::limits::CEL_BYTES;

use crate::cesql::{ParseError, Position};
use crate::demand::Alternatives;
use crate::view::EventView;
use runtime::Pattern;

/// A compiled expression. Cloning shares it. Two are equal where their texts are.
///
/// ```
/// use tidegate_routing::cel::Expression;
/// use tidegate_routing::EventView;
/// use tidegate_schemas::{Data, Event};
///
/// let expression = Expression::parse("event.type == 'placed' && event.data.amount > 100").unwrap();
/// let event = Event::builder("1", "/shop", "placed").data(Data::Json(r#"{"amount": 120}"#.into())).build().unwrap();
/// assert!(expression.matches(&EventView::new(&event)));
/// ```
#[derive(Clone)]
pub struct Expression(Arc<Inner>);

struct Inner {
    text: ByteString,
    /// The operands of the outermost conjunction. `&&` is `true` where each of them is, so each is evaluated by itself.
    conjuncts: Box<[Conjunct]>,
    patterns: Box<[Pattern]>,
}

struct Conjunct {
    text: Box<str>,
    /// With what [`check::Checker::prepare`] has added.
    tree: IdedExpr,
    /// What it asks the event for, such as `type` or `data.amount`.
    names: Box<[String]>,
    demands: Option<Alternatives>,
}

/// Why an event does not pass an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingPart<'a> {
    /// The text of the operand of the outermost conjunction that decided.
    pub text: &'a str,
    /// What this part asks the event for, such as `type` or `data.amount`, in the order of its text, each once.
    pub names: Vec<&'a str>,
    /// Why the part has no value that is a `bool`; nothing where it is `false`.
    pub error: Option<String>,
}

impl Expression {
    /// Reads an expression. Fails at its first fault: of syntax, of a name that does not exist, or of a limit.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let fault = |at: usize, what: String, mend: &str| ParseError {
            position: Position::of(text, at),
            what,
            mend: mend.to_owned(),
        };
        if text.len() > CEL_BYTES {
            let what = format!("the expression has {} bytes and may have {CEL_BYTES}", text.len());
            return Err(fault(0, what, "make it shorter, or divide it among several filters"));
        }
        if text.trim().is_empty() {
            let mend = "write one, such as `event.data.amount > 100`";
            return Err(fault(0, "the expression is empty".to_owned(), mend));
        }
        let ranges = scan::conjuncts(text).map_err(|at| check::too_deep(text, at))?;
        let whole = check::parse(text)?;
        let mut checker = check::Checker::default();
        checker.check(text, &whole)?;
        let mut conjuncts = Vec::with_capacity(ranges.len());
        for range in ranges {
            let part = &text[range];
            // The whole is parsed and checked, so its parts are as well; the place of a fault would be that of the part.
            let (mut tree, _) = check::parse(part)?;
            let (names, demands) = (analysis::names(&tree), analysis::demands(&tree));
            checker.prepare(&mut tree).map_err(|what| fault(0, what, "write another pattern"))?;
            conjuncts.push(Conjunct { text: part.into(), tree, names: names.into(), demands });
        }
        let patterns = checker.into_patterns();
        Ok(Self(Arc::new(Inner { text: text.into(), conjuncts: conjuncts.into(), patterns: patterns.into() })))
    }

    /// The text as it was written.
    pub fn text(&self) -> &ByteString {
        &self.0.text
    }

    /// Whether the event passes the expression.
    pub fn matches(&self, view: &EventView<'_>) -> bool {
        let scope = runtime::Scope::new(view, &self.0.patterns);
        self.0.conjuncts.iter().all(|conjunct| runtime::evaluate(&conjunct.tree, &scope, |_| ()) == Ok(true))
    }

    /// The part of the expression that keeps the event from passing; nothing where it passes. One that is `false` comes
    /// before one that has an error, since it decides whatever the others are.
    pub fn failing_part(&self, view: &EventView<'_>) -> Option<FailingPart<'_>> {
        let scope = runtime::Scope::new(view, &self.0.patterns);
        let mut failing = None;
        for conjunct in &self.0.conjuncts {
            match runtime::evaluate(&conjunct.tree, &scope, |failure| failure.describe()) {
                Ok(true) => {}
                Ok(false) => return Some(conjunct.failing(None)),
                Err(error) => failing = failing.or_else(|| Some(conjunct.failing(Some(error)))),
            }
        }
        failing
    }

    /// What the expression asks the event for, such as `type` or `data.amount`, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.0.conjuncts.iter().flat_map(|conjunct| &conjunct.names) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// What an event must have to pass, as far as an index can use it.
    pub(crate) fn demands(&self) -> impl Iterator<Item = &Alternatives> {
        self.0.conjuncts.iter().filter_map(|conjunct| conjunct.demands.as_ref())
    }
}

impl Conjunct {
    fn failing(&self, error: Option<String>) -> FailingPart<'_> {
        FailingPart { text: &self.text, names: self.names.iter().map(String::as_str).collect(), error }
    }
}

/// What an event has in one of the places that [`Expression::names`] tells, as text; nothing where it has nothing there.
pub fn text_of(view: &EventView<'_>, name: &str) -> Option<String> {
    match name.strip_prefix("data").filter(|rest| rest.is_empty() || rest.starts_with('.')) {
        Some(path) => runtime::data_text(view, path),
        None => view.event().attribute(name).map(|value| value.into_owned()),
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Expression {}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Expression").field(&self.0.text).finish()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.text)
    }
}

impl std::str::FromStr for Expression {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}
