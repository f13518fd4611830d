//! The values of CESQL (3.1) and their casts (3.7).

use std::borrow::Cow;
use std::fmt;

/// The type of a value (CESQL 3.1). URIs, timestamps and bytes are Strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `true` or `false`.
    Boolean,
    /// A whole number of 32 bits with a sign.
    Integer,
    /// Unicode text.
    String,
}

impl Type {
    /// The value that stands for "none" after an error (CESQL 3.1): `false`, 0 or the empty text.
    pub fn zero(self) -> Value<'static> {
        match self {
            Self::Boolean => Value::Boolean(false),
            Self::Integer => Value::Integer(0),
            Self::String => Value::String(Cow::Borrowed("")),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Boolean => "Boolean",
            Self::Integer => "Integer",
            Self::String => "String",
        })
    }
}

/// A value; text is borrowed from the event or the expression where it can be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value<'a> {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number of 32 bits with a sign.
    Integer(i32),
    /// Unicode text.
    String(Cow<'a, str>),
}

impl<'a> Value<'a> {
    /// Its type.
    pub fn value_type(&self) -> Type {
        match self {
            Self::Boolean(_) => Type::Boolean,
            Self::Integer(_) => Type::Integer,
            Self::String(_) => Type::String,
        }
    }

    /// The value as a Boolean: an Integer other than 0 is `true`, and a String must be `true` or `false` in any case.
    pub fn to_boolean(&self) -> Option<bool> {
        match self {
            Self::Boolean(flag) => Some(*flag),
            Self::Integer(number) => Some(*number != 0),
            Self::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Self::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            Self::String(_) => None,
        }
    }

    /// The value as an Integer: `true` is 1, and a String must be digits of base 10 with or without a sign.
    pub fn to_integer(&self) -> Option<i32> {
        match self {
            Self::Boolean(flag) => Some(i32::from(*flag)),
            Self::Integer(number) => Some(*number),
            Self::String(text) => text.parse().ok(),
        }
    }

    /// The value as text, which every value has.
    pub fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Boolean(true) => Cow::Borrowed("true"),
            Self::Boolean(false) => Cow::Borrowed("false"),
            Self::Integer(number) => Cow::Owned(number.to_string()),
            Self::String(text) => text,
        }
    }

    /// The value as another type (CESQL 3.7); nothing where it has none.
    pub fn cast(self, target: Type) -> Option<Self> {
        match target {
            Type::Boolean => self.to_boolean().map(Self::Boolean),
            Type::Integer => self.to_integer().map(Self::Integer),
            Type::String => Some(Self::String(self.into_text())),
        }
    }

    /// Takes the value out of a list of arguments.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Boolean(false))
    }

    /// The value without anything borrowed.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Boolean(flag) => Value::Boolean(flag),
            Self::Integer(number) => Value::Integer(number),
            Self::String(text) => Value::String(Cow::Owned(text.into_owned())),
        }
    }
}

/// The value as its String.
impl fmt::Display for Value<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(flag) => flag.fmt(formatter),
            Self::Integer(number) => number.fmt(formatter),
            Self::String(text) => text.fmt(formatter),
        }
    }
}
