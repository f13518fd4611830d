//! What is wrong with an expression before any event comes, and what is added to its tree before it is evaluated.

use ::cel::IdedExpr;
use ::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SourceInfo, operators};
use tidegate_schemas::limits::{CEL_COMPREHENSIONS, CEL_DEPTH, CEL_NODES};

use super::analysis::{self, entries};
use super::runtime::{BUDGET, CHARGE, PATTERN, Pattern, environment};
use crate::cesql::{ParseError, Position};

/// The functions of the standard library, with the arguments that they take as a function and as a method.
const FUNCTIONS: [(&str, Option<usize>, Option<usize>); 13] = [
    ("bool", Some(1), None),
    ("bytes", Some(1), None),
    ("contains", None, Some(1)),
    ("double", Some(1), None),
    ("dyn", Some(1), None),
    ("endsWith", None, Some(1)),
    ("int", Some(1), None),
    ("matches", Some(2), Some(1)),
    ("size", Some(1), Some(0)),
    ("startsWith", None, Some(1)),
    ("string", Some(1), None),
    ("type", Some(1), None),
    ("uint", Some(1), None),
];

/// The names of types, which `type(x)` is compared with.
const TYPES: [&str; 10] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

pub(super) fn too_deep(text: &str, at: usize) -> ParseError {
    let what = format!("the expression is nested deeper than {CEL_DEPTH} levels");
    ParseError { position: Position::of(text, at), what, mend: "write it flatter".to_owned() }
}

pub(super) fn parse(text: &str) -> Result<(IdedExpr, SourceInfo), ParseError> {
    environment().parser().parse_with_source_info(text).map_err(|errors| {
        let Some(error) = errors.errors.into_iter().next() else { return unknown(text) };
        let position =
            Position::at(text, usize::try_from(error.pos.0).unwrap_or(1), usize::try_from(error.pos.1).unwrap_or(1));
        // Behind it stands a list of all tokens that the grammar allows, which helps nobody.
        let message = error.msg.split(" expecting ").next().unwrap_or_default();
        let what = message.strip_prefix("Syntax error: ").unwrap_or(message).replace('\n', " ");
        ParseError { position, what, mend: mend_of_syntax(text, position).to_owned() }
    })
}

fn unknown(text: &str) -> ParseError {
    let mend = "see cel.dev for the language; a filter is such as `event.data.amount > 100`".to_owned();
    ParseError { position: Position::of(text, 0), what: "this is no expression".to_owned(), mend }
}

/// Hints for what other languages write.
fn mend_of_syntax(text: &str, position: Position) -> &'static str {
    let rest = &text[text.floor_char_boundary(position.offset)..];
    let begins = |word: &str| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if begins("and") || begins("&") {
        "write `&&`"
    } else if begins("or") || begins("|") {
        "write `||`"
    } else if begins("=") {
        "write `==`"
    } else if begins("not") {
        "write `!`"
    } else if begins("<>") || begins(">") {
        "write `!=` for what is not equal"
    } else {
        "see cel.dev for the language; a filter is such as `event.data.amount > 100`"
    }
}

/// The checks of a tree, and the patterns that were found in it.
#[derive(Default)]
pub(super) struct Checker {
    patterns: Vec<Pattern>,
}

/// What is checked, with the variables of the comprehensions around.
struct Walk<'t> {
    text: &'t str,
    source: &'t SourceInfo,
    nodes: usize,
    variables: Vec<&'t str>,
}

impl Checker {
    /// Everything that evaluation relies on.
    pub(super) fn check(&mut self, text: &str, parsed: &(IdedExpr, SourceInfo)) -> Result<(), ParseError> {
        let mut walk = Walk { text, source: &parsed.1, nodes: 0, variables: Vec::new() };
        walk.expression(&parsed.0)
    }

    pub(super) fn into_patterns(self) -> Vec<Pattern> {
        self.patterns
    }

    /// Puts compiled patterns and the counting of steps into a tree. Whatever a function, `+`, a list or a map reads or
    /// copies is counted before, and so is what a comprehension runs over; a comparison with a literal costs no more than
    /// the literal, and selecting a field or an element copies nothing.
    pub(super) fn prepare(&mut self, expression: &mut IdedExpr) -> Result<(), String> {
        match &mut expression.expr {
            Expr::Call(call) => self.prepare_call(call)?,
            Expr::List(list) => {
                for element in &mut list.elements {
                    self.prepare_charged(element)?;
                }
            }
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.prepare_charged(&mut entry.key)?;
                        self.prepare_charged(&mut entry.value)?;
                    }
                }
            }
            Expr::Select(select) => self.prepare(&mut select.operand)?,
            Expr::Comprehension(comprehension) => {
                let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } =
                    &mut **comprehension;
                self.prepare_charged(iter_range)?;
                for part in [accu_init, loop_cond, loop_step, result] {
                    self.prepare(part)?;
                }
            }
            Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
        }
        Ok(())
    }

    fn prepare_charged(&mut self, expression: &mut IdedExpr) -> Result<(), String> {
        self.prepare(expression)?;
        charge(expression);
        Ok(())
    }

    fn prepare_call(&mut self, call: &mut CallExpr) -> Result<(), String> {
        for part in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
            self.prepare(part)?;
        }
        let has_literal = call.args.iter().any(|argument| matches!(argument.expr, Expr::Literal(_)));
        match call.func_name.as_str() {
            operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::CONDITIONAL
            | operators::NOT_STRICTLY_FALSE
            | operators::INDEX
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::NEGATE => {}
            operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | "startsWith"
            | "endsWith"
                if has_literal => {}
            operators::IN => call.args.iter_mut().skip(1).for_each(charge),
            "matches" => {
                if let Some(pattern) = call.args.last_mut()
                    && let Expr::Literal(LiteralValue::String(text)) = &pattern.expr
                {
                    self.patterns.push(Pattern::new(text.inner())?);
                    pattern.expr = Expr::Ident(format!("{PATTERN}{}", self.patterns.len() - 1));
                }
                call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(charge);
            }
            _ => call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(charge),
        }
        Ok(())
    }
}

/// Wraps what may be large and is not counted elsewhere.
fn charge(expression: &mut IdedExpr) {
    match &expression.expr {
        Expr::Literal(_) | Expr::List(_) | Expr::Map(_) => return,
        Expr::Ident(name) if name.starts_with('@') => return,
        _ => {}
    }
    let id = expression.id;
    let value = std::mem::take(expression);
    let budget = IdedExpr { id, expr: Expr::Ident(BUDGET.to_owned()) };
    let call = CallExpr { func_name: CHARGE.to_owned(), target: None, args: vec![budget, value] };
    *expression = IdedExpr { id, expr: Expr::Call(call) };
}

impl<'t> Walk<'t> {
    fn fault(&self, expression: &IdedExpr, what: impl Into<String>, mend: impl Into<String>) -> ParseError {
        let offset = self.source.offset_for(expression.id).map_or(0, |(start, _)| start);
        let position = Position::of(self.text, usize::try_from(offset).unwrap_or(0));
        ParseError { position, what: what.into(), mend: mend.into() }
    }

    fn expression(&mut self, expression: &'t IdedExpr) -> Result<(), ParseError> {
        self.nodes += 1;
        if self.nodes > CEL_NODES {
            let what = format!("the expression has more than {CEL_NODES} parts");
            return Err(self.fault(expression, what, "divide it among several filters"));
        }
        match &expression.expr {
            Expr::Unspecified => Err(unknown(self.text)),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.identifier(expression, name),
            Expr::Select(select) => {
                if let Some(name) = analysis::field_of_event(expression) {
                    return self.field_of_event(expression, name);
                }
                self.expression(&select.operand)
            }
            Expr::Call(call) => self.call(expression, call),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.expression(element)),
            Expr::Map(map) => {
                for (key, value) in entries(map) {
                    self.expression(key)?;
                    self.expression(value)?;
                }
                Ok(())
            }
            Expr::Struct(_) => Err(self.fault(
                expression,
                "there are no messages to build here",
                "compare fields by themselves, such as `event.data.amount == 1`",
            )),
            Expr::Comprehension(comprehension) => self.comprehension(expression, comprehension),
        }
    }

    fn identifier(&self, expression: &IdedExpr, name: &str) -> Result<(), ParseError> {
        if name.starts_with('@') || self.variables.contains(&name) || TYPES.contains(&name) {
            return Ok(());
        }
        if name == "event" {
            return Err(self.fault(
                expression,
                "`event` is no value by itself",
                "ask for an attribute, such as `event.type`, or for `event.data`",
            ));
        }
        Err(self.fault(
            expression,
            "there is no variable of this name",
            "attributes are asked for as `event.type`, data as `event.data.amount`; put text into quotes",
        ))
    }

    fn field_of_event(&self, expression: &IdedExpr, name: &str) -> Result<(), ParseError> {
        if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Ok(());
        }
        Err(self.fault(
            expression,
            "no event has an attribute of this name: names are lower-case letters and digits",
            "correct the name; what is in the data is asked for as `event.data.NAME`",
        ))
    }

    fn call(&mut self, expression: &'t IdedExpr, call: &'t CallExpr) -> Result<(), ParseError> {
        if call.func_name == operators::INDEX
            && let [operand, index] = &call.args[..]
            && analysis::is_event(operand)
        {
            return match analysis::field_of_event(expression) {
                Some(name) => self.field_of_event(index, name),
                None => self.expression(index),
            };
        }
        if call.func_name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            self.function(expression, call)?;
        }
        call.target.as_deref().into_iter().chain(&call.args).try_for_each(|part| self.expression(part))
    }

    fn function(&self, expression: &IdedExpr, call: &CallExpr) -> Result<(), ParseError> {
        let Some((name, function, method)) = FUNCTIONS.iter().find(|(name, ..)| *name == call.func_name) else {
            let mend = match call.func_name.as_str() {
                "timestamp" | "duration" => {
                    "times are text here; those in UTC and of the same precision are ordered as their text is"
                }
                "has" => "`has` takes a field, such as `has(event.subject)`",
                "all" | "exists" | "exists_one" | "map" | "filter" => {
                    "it is a method of a list with a variable and a condition, such as `event.data.list.exists(x, x > 1)`"
                }
                _ => {
                    "use one of bool, bytes, contains, double, dyn, endsWith, int, matches, size, startsWith, string, type, uint, or one of the macros all, exists, exists_one, filter, has, map"
                }
            };
            return Err(self.fault(expression, "there is no function of this name", mend));
        };
        let takes = if call.target.is_some() { *method } else { *function };
        if takes != Some(call.args.len()) {
            let example = match (function, method) {
                (_, Some(0)) => format!("`{name}(x)` or `x.{name}()`"),
                (_, Some(_)) => format!("`x.{name}(y)`"),
                _ => format!("`{name}(x)`"),
            };
            return Err(self.fault(
                expression,
                format!("`{name}` is not called in this way"),
                format!("write {example}"),
            ));
        }
        if *name == "matches"
            && !matches!(call.args.last(), Some(IdedExpr { expr: Expr::Literal(LiteralValue::String(_)), .. }))
        {
            return Err(self.fault(
                expression,
                "the pattern of `matches` is not written out",
                "write it as a text in quotes, such as `event.type.matches('^com[.]')`",
            ));
        }
        Ok(())
    }

    fn comprehension(&mut self, expression: &'t IdedExpr, parts: &'t ComprehensionExpr) -> Result<(), ParseError> {
        let ComprehensionExpr { iter_range, iter_var, accu_init, loop_cond, loop_step, result, .. } = parts;
        self.expression(iter_range)?;
        if iter_var == "event" || TYPES.contains(&iter_var.as_str()) {
            return Err(self.fault(expression, "a variable has a name that is taken", "give it another, such as `x`"));
        }
        self.variables.push(iter_var);
        if self.variables.len() > CEL_COMPREHENSIONS {
            let what = format!(
                "more than {CEL_COMPREHENSIONS} of all, exists, exists_one, map and filter stand within each other"
            );
            return Err(self.fault(expression, what, "write them beside each other, joined by `&&`"));
        }
        for part in [accu_init, loop_cond, loop_step, result] {
            self.expression(part)?;
        }
        self.variables.pop();
        Ok(())
    }
}
