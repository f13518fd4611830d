//! Functions that an expression may call (CESQL 3.5): dispatched by name and number of arguments.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use super::lexer::keyword;
use super::value::{Type, Value};
use super::{ErrorKind, builtin};

/// What a function takes in one place: a type to which the argument is cast, or any value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parameter {
    /// A value of this type; an argument of another is cast.
    Of(Type),
    /// Any value as it is.
    Any,
}

/// A function could not compute its result. It still gives a value (CESQL 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<'v> {
    pub(super) kind: ErrorKind,
    pub(super) value: Value<'v>,
    pub(super) message: String,
}

impl<'v> Failure<'v> {
    /// A fault of the function's evaluation, with the value that the function has all the same.
    pub fn new(value: Value<'v>, message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::FunctionEvaluation, value, message: message.into() }
    }

    pub(super) fn of_kind(kind: ErrorKind, value: Value<'v>, message: impl Into<String>) -> Self {
        Self { kind, value, message: message.into() }
    }
}

type Body = dyn for<'v> Fn(&mut [Value<'v>]) -> Result<Value<'v>, Failure<'v>> + Send + Sync;

/// A function: its signature and what it does.
pub struct Function {
    name: Box<str>,
    fixed: Vec<Parameter>,
    rest: Option<Parameter>,
    returns: Type,
    body: Box<Body>,
}

impl Function {
    /// A function that takes just these arguments. The body may take them out with [`Value::take`]; they have the types
    /// of the parameters. It must depend on nothing else (CESQL 1) and give a value of the type `returns`.
    pub fn new(
        name: &str,
        parameters: &[Parameter],
        returns: Type,
        body: impl for<'v> Fn(&mut [Value<'v>]) -> Result<Value<'v>, Failure<'v>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.to_ascii_uppercase().into(),
            fixed: parameters.to_vec(),
            rest: None,
            returns,
            body: Box::new(body),
        }
    }

    /// The function with any number of arguments more.
    #[must_use]
    pub fn variadic(self, rest: Parameter) -> Self {
        Self { rest: Some(rest), ..self }
    }

    /// The name in upper case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a name has the form that calls can have (CESQL 2.4).
    pub(super) fn is_name(name: &str) -> bool {
        name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
    }

    fn takes(&self, arguments: usize) -> bool {
        if self.rest.is_some() { arguments >= self.fixed.len() } else { arguments == self.fixed.len() }
    }

    pub(super) fn parameter(&self, index: usize) -> Parameter {
        self.fixed.get(index).copied().or(self.rest).unwrap_or(Parameter::Any)
    }

    pub(super) fn returns(&self) -> Type {
        self.returns
    }

    pub(super) fn call<'v>(&self, arguments: &mut [Value<'v>]) -> Result<Value<'v>, Failure<'v>> {
        let result = (self.body)(arguments);
        let value = match &result {
            Ok(value) => value,
            Err(failure) => &failure.value,
        };
        if value.value_type() == self.returns {
            return result;
        }
        let message = format!("gave a {} instead of a {}", value.value_type(), self.returns);
        Err(Failure::new(self.returns.zero(), message))
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, fixed, rest, returns, body: _ } = self;
        formatter
            .debug_struct("Function")
            .field("name", name)
            .field("fixed", fixed)
            .field("rest", rest)
            .field("returns", returns)
            .finish_non_exhaustive()
    }
}

/// A function cannot be added to a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The name cannot stand in an expression.
    #[error("`{0}` cannot be called; name a function with letters and `_`, and not like a keyword")]
    Name(String),
    /// A function of the name takes as many arguments (CESQL 3.5).
    #[error("a function {0} with as many arguments is registered; overloads differ in the number of arguments")]
    Overload(String),
}

/// The functions that expressions may call.
#[derive(Clone, Debug)]
pub struct Functions {
    by_name: BTreeMap<Box<str>, Vec<Arc<Function>>>,
}

impl Functions {
    /// The functions of CESQL 3.5 and the casts `INT`, `BOOL` and `STRING`.
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Functions> = LazyLock::new(|| {
            let mut functions = Functions { by_name: BTreeMap::new() };
            for function in builtin::all() {
                functions.register(function).expect("the built-in functions differ in name or arity");
            }
            functions
        });
        &BUILTIN
    }

    /// Adds a function. One that has the name of another must take another number of arguments; of one name only one
    /// function may be variadic, and its fixed parameters are more than those of all others (CESQL 3.5).
    pub fn register(&mut self, function: Function) -> Result<(), RegistrationError> {
        if !Function::is_name(function.name()) || keyword(function.name()).is_some() {
            return Err(RegistrationError::Name(function.name.into()));
        }
        let overloads = self.by_name.entry(function.name.clone()).or_default();
        let collides = overloads.iter().any(|other| match (other.rest, function.rest) {
            (None, None) => other.fixed.len() == function.fixed.len(),
            (Some(_), Some(_)) => true,
            (Some(_), None) => function.fixed.len() >= other.fixed.len(),
            (None, Some(_)) => other.fixed.len() >= function.fixed.len(),
        });
        if collides {
            return Err(RegistrationError::Overload(function.name.into()));
        }
        overloads.push(Arc::new(function));
        Ok(())
    }

    /// The function of a name in upper case that takes so many arguments.
    pub(super) fn resolve(&self, name: &str, arguments: usize) -> Option<&Arc<Function>> {
        self.by_name.get(name)?.iter().find(|function| function.takes(arguments))
    }

    /// How many arguments the functions of that name take, in words.
    pub(super) fn arities(&self, name: &str) -> Option<String> {
        let arity = |function: &Arc<Function>| match (function.fixed.len(), function.rest) {
            (count, None) => count.to_string(),
            (count, Some(_)) => format!("{count} or more"),
        };
        let arities: Vec<_> = self.by_name.get(name)?.iter().map(arity).collect();
        Some(arities.join(" or "))
    }

    /// All names.
    pub(super) fn names(&self) -> String {
        self.by_name.keys().map(|name| &**name).collect::<Vec<_>>().join(", ")
    }
}

/// The built-in functions.
impl Default for Functions {
    fn default() -> Self {
        Self::builtin().clone()
    }
}
