//! What an expression asks the event for, and what an event must have to pass it, as far as an index can use it.

use ::cel::IdedExpr;
use ::cel::common::ast::{EntryExpr, Expr, LiteralValue, MapExpr, operators};

use crate::demand::{Alternatives, Comparison, Demand, either, strictest};

/// Whether this is the variable `event`, which no other variable can hide.
pub(super) fn is_event(expression: &IdedExpr) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name == "event")
}

/// The name in `event.name`, `event['name']` or `has(event.name)`.
pub(super) fn field_of_event(expression: &IdedExpr) -> Option<&str> {
    field(expression).filter(|(operand, _)| is_event(operand)).map(|(_, name)| name)
}

/// What a field is selected of, and its name.
fn field(expression: &IdedExpr) -> Option<(&IdedExpr, &str)> {
    match &expression.expr {
        Expr::Select(select) => Some((&select.operand, &select.field)),
        Expr::Call(call) if call.func_name == operators::INDEX => match &call.args[..] {
            [operand, index] => Some((operand, text(index)?)),
            _ => None,
        },
        _ => None,
    }
}

/// The text that a literal is.
fn text(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

pub(super) fn entries(map: &MapExpr) -> impl Iterator<Item = (&IdedExpr, &IdedExpr)> {
    map.entries.iter().filter_map(|entry| match &entry.expr {
        EntryExpr::MapEntry(entry) => Some((&entry.key, &entry.value)),
        EntryExpr::StructField(_) => None,
    })
}

/// What the expression asks the event for, such as `type` or `data.amount`, in the order of its text, each once.
pub(super) fn names(expression: &IdedExpr) -> Vec<String> {
    let mut names = Vec::new();
    collect_names(expression, &mut names);
    names
}

fn collect_names(expression: &IdedExpr, names: &mut Vec<String>) {
    if let Some(path) = path(expression) {
        if !names.contains(&path) {
            names.push(path);
        }
        return;
    }
    let mut below = |part: &IdedExpr| collect_names(part, names);
    match &expression.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).for_each(below),
        Expr::List(list) => list.elements.iter().for_each(below),
        Expr::Map(map) => entries(map).for_each(|(key, value)| {
            below(key);
            below(value);
        }),
        Expr::Select(select) => below(&select.operand),
        Expr::Comprehension(parts) => {
            [&parts.iter_range, &parts.accu_init, &parts.loop_cond, &parts.loop_step, &parts.result]
                .into_iter()
                .for_each(below);
        }
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

/// The path of fields from the event on. A name with a `.` cannot be part of one.
fn path(expression: &IdedExpr) -> Option<String> {
    let (operand, name) = field(expression)?;
    if is_event(operand) {
        return Some(name.to_owned());
    }
    let above = path(operand)?;
    let in_data = above == "data" || above.starts_with("data.");
    (in_data && !name.contains('.')).then(|| format!("{above}.{name}"))
}

/// What an event must meet for the expression to be `true`.
///
/// Only texts are looked at. An attribute of another type is equal to no text and begins with none, so an event whose
/// attribute has that canonical form by accident does not pass, and is asked in vain at worst.
pub(super) fn demands(expression: &IdedExpr) -> Option<Alternatives> {
    let Expr::Call(call) = &expression.expr else { return None };
    let one =
        |comparison, attribute: &str, text: &str| Demand::new(comparison, attribute, text).map(|demand| vec![demand]);
    match (call.func_name.as_str(), call.target.as_deref(), &call.args[..]) {
        (operators::LOGICAL_AND, None, operands) => strictest(operands.iter().filter_map(demands)),
        (operators::LOGICAL_OR, None, operands) => either(operands.iter().map(demands)),
        (operators::EQUALS, None, [left, right]) => {
            let (attribute, text) = attribute(left).zip(text(right)).or_else(|| attribute(right).zip(text(left)))?;
            one(Comparison::Exact, attribute, text)
        }
        (operators::IN, None, [operand, list]) => {
            let Expr::List(list) = &list.expr else { return None };
            let attribute = attribute(operand)?;
            either(list.elements.iter().map(|element| one(Comparison::Exact, attribute, text(element)?)))
        }
        ("startsWith", Some(target), [argument]) => one(Comparison::Prefix, attribute(target)?, text(argument)?),
        ("endsWith", Some(target), [argument]) => one(Comparison::Suffix, attribute(target)?, text(argument)?),
        _ => None,
    }
}

/// The attribute that an expression is the value of. `has(event.name)` is none.
fn attribute(expression: &IdedExpr) -> Option<&str> {
    if matches!(&expression.expr, Expr::Select(select) if select.test) {
        return None;
    }
    field_of_event(expression).filter(|name| *name != "data")
}
