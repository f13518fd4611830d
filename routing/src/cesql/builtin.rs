//! The built-in functions (CESQL 3.5.1 and 3.5.2) and the casts by name, which the text uses without a table.

use std::borrow::Cow;
use std::ops::Range;

use tidegate_schemas::limits::CESQL_TEXT_BYTES;

use super::ErrorKind;
use super::functions::{Failure, Function, Parameter};
use super::value::{Type, Value};

type Outcome<'v> = Result<Value<'v>, Failure<'v>>;

const TEXT: Parameter = Parameter::Of(Type::String);
const INTEGER: Parameter = Parameter::Of(Type::Integer);

pub(super) fn all() -> [Function; 14] {
    [
        Function::new("INT", &[Parameter::Any], Type::Integer, |arguments| cast(arguments, Type::Integer)),
        Function::new("BOOL", &[Parameter::Any], Type::Boolean, |arguments| cast(arguments, Type::Boolean)),
        Function::new("STRING", &[Parameter::Any], Type::String, |arguments| cast(arguments, Type::String)),
        Function::new("ABS", &[INTEGER], Type::Integer, absolute),
        Function::new("LENGTH", &[TEXT], Type::Integer, length),
        Function::new("CONCAT", &[], Type::String, |arguments| join("", arguments)).variadic(TEXT),
        Function::new("CONCAT_WS", &[TEXT], Type::String, |arguments| {
            let delimiter = text(arguments, 0);
            join(&delimiter, &mut arguments[1..])
        })
        .variadic(TEXT),
        Function::new("LOWER", &[TEXT], Type::String, |arguments| {
            let text = text(arguments, 0);
            let lower = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase();
            if text.bytes().all(lower) { string(text) } else { bounded(text.to_lowercase()) }
        }),
        Function::new("UPPER", &[TEXT], Type::String, |arguments| {
            let text = text(arguments, 0);
            let upper = |byte: u8| byte.is_ascii() && !byte.is_ascii_lowercase();
            if text.bytes().all(upper) { string(text) } else { bounded(text.to_uppercase()) }
        }),
        Function::new("TRIM", &[TEXT], Type::String, trim),
        Function::new("LEFT", &[TEXT, INTEGER], Type::String, left),
        Function::new("RIGHT", &[TEXT, INTEGER], Type::String, right),
        Function::new("SUBSTRING", &[TEXT, INTEGER], Type::String, |arguments| {
            let (text, position) = (text(arguments, 0), integer(arguments, 1));
            substring(text, position, None)
        }),
        Function::new("SUBSTRING", &[TEXT, INTEGER, INTEGER], Type::String, |arguments| {
            let (text, position, length) = (text(arguments, 0), integer(arguments, 1), integer(arguments, 2));
            substring(text, position, Some(length))
        }),
    ]
}

/// An argument that the signature makes a String.
fn text<'v>(arguments: &mut [Value<'v>], index: usize) -> Cow<'v, str> {
    arguments[index].take().into_text()
}

/// An argument that the signature makes an Integer.
fn integer(arguments: &[Value<'_>], index: usize) -> i32 {
    arguments[index].to_integer().unwrap_or_default()
}

fn string(text: Cow<'_, str>) -> Outcome<'_> {
    Ok(Value::String(text))
}

/// A text that was made, if it is not too long.
fn bounded<'v>(text: String) -> Outcome<'v> {
    if text.len() > CESQL_TEXT_BYTES {
        let message = format!("its result has {} bytes and may have {CESQL_TEXT_BYTES}", text.len());
        return Err(Failure::new(Type::String.zero(), message));
    }
    Ok(Value::String(Cow::Owned(text)))
}

fn cast<'v>(arguments: &mut [Value<'v>], target: Type) -> Outcome<'v> {
    let value = arguments[0].take();
    let from = value.value_type();
    value.cast(target).ok_or_else(|| {
        Failure::of_kind(ErrorKind::Cast, target.zero(), format!("cannot make a {target} of this {from}"))
    })
}

fn absolute<'v>(arguments: &mut [Value<'v>]) -> Outcome<'v> {
    match integer(arguments, 0).checked_abs() {
        Some(number) => Ok(Value::Integer(number)),
        None => Err(Failure::of_kind(ErrorKind::Math, Value::Integer(i32::MAX), "its result does not fit an Integer")),
    }
}

fn length<'v>(arguments: &mut [Value<'v>]) -> Outcome<'v> {
    let characters = text(arguments, 0).chars().count();
    i32::try_from(characters)
        .map(Value::Integer)
        .map_err(|_| Failure::new(Type::Integer.zero(), "its result does not fit an Integer"))
}

fn join<'v>(delimiter: &str, parts: &mut [Value<'v>]) -> Outcome<'v> {
    // One part is the result as it is, without a copy.
    if let [only] = parts {
        return string(only.take().into_text());
    }
    let mut joined = String::new();
    for (index, part) in parts.iter_mut().enumerate() {
        if index > 0 {
            joined.push_str(delimiter);
        }
        joined.push_str(&part.take().into_text());
        if joined.len() > CESQL_TEXT_BYTES {
            break;
        }
    }
    bounded(joined)
}

fn trim<'v>(arguments: &mut [Value<'v>]) -> Outcome<'v> {
    let text = text(arguments, 0);
    let start = text.len() - text.trim_start().len();
    let end = start + text[start..].trim_end().len();
    string(slice(text, start..end))
}

fn left<'v>(arguments: &mut [Value<'v>]) -> Outcome<'v> {
    let (text, count) = (text(arguments, 0), integer(arguments, 1));
    match usize::try_from(count) {
        Ok(count) => {
            let end = byte_of(&text, count);
            string(slice(text, 0..end))
        }
        Err(_) => Err(negative(text)),
    }
}

fn right<'v>(arguments: &mut [Value<'v>]) -> Outcome<'v> {
    let (text, count) = (text(arguments, 0), integer(arguments, 1));
    match usize::try_from(count) {
        Ok(0) => string(Cow::Borrowed("")),
        Ok(count) => {
            let start = text.char_indices().rev().nth(count - 1).map_or(0, |(start, _)| start);
            let end = text.len();
            string(slice(text, start..end))
        }
        Err(_) => Err(negative(text)),
    }
}

fn negative(text: Cow<'_, str>) -> Failure<'_> {
    Failure::new(Value::String(text), "its second argument is negative")
}

fn substring(text: Cow<'_, str>, position: i32, length: Option<i32>) -> Outcome<'_> {
    let fail = |message: &str| Err(Failure::new(Type::String.zero(), message));
    if length.is_some_and(|length| length < 0) {
        return fail("its third argument is negative");
    }
    let distance = position.unsigned_abs() as usize;
    let start = match position {
        0 => return string(Cow::Borrowed("")),
        1.. => text.char_indices().nth(distance - 1),
        _ => text.char_indices().rev().nth(distance - 1),
    };
    let Some((start, _)) = start else { return fail("its second argument is a position outside of the text") };
    let end = match length.and_then(|length| usize::try_from(length).ok()) {
        Some(length) => start + byte_of(&text[start..], length),
        None => text.len(),
    };
    string(slice(text, start..end))
}

/// Where the character of that index begins, or the end.
fn byte_of(text: &str, character: usize) -> usize {
    text.char_indices().nth(character).map_or(text.len(), |(start, _)| start)
}

/// A part of a text, borrowed where the text is.
fn slice(text: Cow<'_, str>, range: Range<usize>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[range]),
        Cow::Owned(mut text) => {
            text.truncate(range.end);
            text.drain(..range.start);
            Cow::Owned(text)
        }
    }
}
