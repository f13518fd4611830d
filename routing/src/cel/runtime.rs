//! Evaluation: the environment that all expressions share, what an expression sees of an event, and the count of steps.

use std::any::Any;
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use ::cel::common::traits::Indexer;
use ::cel::common::types::{
    CelBool, CelBytes, CelInt, CelList, CelMap, CelMapKey, CelString, DYN_TYPE, STRING_TYPE, Type,
};
use ::cel::common::value::{CowVal, StaticVal, Val};
use ::cel::context::VariableResolver;
use ::cel::{Context, Env, ExecutionError, IdedExpr, Value};
use regex::{Regex, RegexBuilder};
use tidegate_schemas::Value as Attribute;
use tidegate_schemas::limits::{CEL_PATTERN_BYTES, CEL_STEPS};

use crate::view::EventView;

/// The function that counts what its argument weighs, and the variables that only prepared trees can name.
pub(super) const CHARGE: &str = "@charge";
pub(super) const BUDGET: &str = "@budget";
pub(super) const PATTERN: &str = "@pattern";

/// Bytes of a text that are one step.
const STEP_BYTES: usize = 64;

/// What a list or map may weigh to be written out in an explanation.
const SHOWN_STEPS: u64 = 256;

static EVENT_TYPE: Type = Type::new_unspecified_type("tidegate.Event");
static BUDGET_TYPE: Type = budget_type();
static PATTERN_TYPE: Type = pattern_type();

const fn budget_type() -> Type {
    Type::new_unspecified_type("tidegate.Budget")
}

const fn pattern_type() -> Type {
    Type::new_unspecified_type("tidegate.Pattern")
}

/// The standard library with what prepared trees call. It takes many times longer to build than an expression to
/// evaluate, so there is one.
static ROOT: LazyLock<(Arc<Env>, Context<'static, 'static>)> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    let declared = env
        .add_overload(CHARGE, "charge", vec![budget_type(), DYN_TYPE], charge)
        .and_then(|()| env.add_overload("matches", "matches_compiled", vec![STRING_TYPE, pattern_type()], find))
        .and_then(|()| {
            env.add_member_overload("matches", "matches_compiled_member", STRING_TYPE, vec![pattern_type()], find)
        });
    declared.expect("the names are not those of the standard library");
    let env = Arc::new(env);
    (Arc::clone(&env), Context::with_env(env))
});

pub(super) fn environment() -> &'static Env {
    &ROOT.0
}

/// Why an expression gives no `bool`.
pub(super) enum Failure<'a> {
    Error(ExecutionError),
    NoBool(&'a str),
}

impl Failure<'_> {
    pub(super) fn describe(self) -> String {
        match self {
            Self::Error(ExecutionError::NoSuchKey(name)) => format!("there is no `{name}`"),
            Self::Error(ExecutionError::FunctionError { message, .. }) => message,
            Self::Error(error) => error.to_string(),
            Self::NoBool(kind) => format!("it gives a value of the type {kind}, and a filter gives a bool"),
        }
    }
}

/// The value of a prepared tree, or what `tell` makes of the failure.
pub(super) fn evaluate<E>(
    tree: &IdedExpr,
    scope: &Scope<'_, '_>,
    tell: impl FnOnce(Failure<'_>) -> E,
) -> Result<bool, E> {
    let mut context = ROOT.1.new_inner_scope();
    context.set_variable_resolver(scope);
    let outcome = Value::resolve_val(tree, &context);
    match &outcome {
        Ok(value) => match value.downcast_ref::<CelBool>() {
            Some(flag) => Ok(*flag.inner()),
            None => Err(tell(Failure::NoBool(value.get_type().name()))),
        },
        Err(error) => Err(tell(Failure::Error(error.clone()))),
    }
}

/// The variables of one evaluation.
pub(super) struct Scope<'a, 'e> {
    attributes: Attributes<'a, 'e>,
    patterns: &'a [Pattern],
    budget: Budget,
}

impl<'a, 'e> Scope<'a, 'e> {
    pub(super) fn new(view: &'a EventView<'e>, patterns: &'a [Pattern]) -> Self {
        Self { attributes: Attributes(view), patterns, budget: Budget(AtomicU64::new(CEL_STEPS)) }
    }
}

impl VariableResolver for Scope<'_, '_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        match variable {
            "event" => Some(CowVal::Borrowed(&self.attributes)),
            BUDGET => Some(CowVal::Borrowed(&self.budget)),
            _ => {
                let index: usize = variable.strip_prefix(PATTERN)?.parse().ok()?;
                self.patterns.get(index).map(|pattern| CowVal::Borrowed(pattern as &dyn Val))
            }
        }
    }
}

/// The variable `event`.
#[derive(Clone, Copy, Debug)]
struct Attributes<'a, 'e>(&'a EventView<'e>);

impl Val for Attributes<'_, '_> {
    fn get_type(&self) -> &Type {
        &EVENT_TYPE
    }

    fn cel_type() -> &'static Type {
        &EVENT_TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Indexer for Attributes<'_, '_> {
    fn get<'b, 'v>(&'b self, field: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let Some(name) = field.downcast_ref::<CelString<'_>>().map(CelString::inner) else {
            let got = field.get_type().name().to_owned();
            return Err(ExecutionError::UnexpectedType { got, want: "the name of an attribute".to_owned() });
        };
        let missing = || ExecutionError::NoSuchKey(Arc::new(name.to_owned()));
        if name == "data" {
            return match self.0.data() {
                Ok(Some(data)) => Ok(CowVal::Borrowed(data)),
                Ok(None) => Err(missing()),
                Err(reason) => Err(ExecutionError::function_error("data", reason)),
            };
        }
        let event = self.0.event();
        Ok(match event.extension(name) {
            Some(Attribute::Boolean(flag)) => CowVal::owned(CelBool::from(*flag)),
            Some(Attribute::Integer(number)) => CowVal::owned(CelInt::from(i64::from(*number))),
            Some(Attribute::Binary(bytes)) => CowVal::owned(CelBytes::from(&**bytes)),
            _ => match event.attribute(name).ok_or_else(missing)? {
                Cow::Borrowed(text) => CowVal::owned(CelString::from(text)),
                Cow::Owned(text) => CowVal::owned(CelString::from(text)),
            },
        })
    }

    fn steal<'v>(self: Box<Self>, field: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(field).map(CowVal::into_owned)
    }
}

/// What a path such as `.order.lines` leads to in the data, as text. A list or map that no explanation could show is only
/// named with its size, so that a large payload is not written out to be cut.
pub(super) fn data_text(view: &EventView<'_>, path: &str) -> Option<String> {
    let mut at = view.data().ok().flatten()?;
    for step in path.split('.').skip(1) {
        at = at.downcast_ref::<CelMap<'_>>()?.inner().get(&CelMapKey::from(step))?.as_ref();
    }
    if let Some(text) = at.downcast_ref::<CelString<'_>>() {
        return Some(text.inner().to_owned());
    }
    let mut left = SHOWN_STEPS;
    if !take(&mut left, at) {
        let size = at.as_sizer().map_or(0, |sizer| *sizer.size().inner());
        return Some(format!("a {} of {size}", at.get_type().name()));
    }
    let value = Value::try_from(at).ok()?;
    value.json().ok().map(|json| json.to_string())
}

/// The steps that an evaluation may still take.
#[derive(Debug)]
struct Budget(AtomicU64);

impl Val for Budget {
    fn get_type(&self) -> &Type {
        &BUDGET_TYPE
    }

    fn cel_type() -> &'static Type {
        &BUDGET_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self(AtomicU64::new(self.0.load(Ordering::Relaxed))))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Budget {}

/// Counts what the second argument weighs, and gives it.
fn charge<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = arguments.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let budget = arguments.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let budget = budget.downcast_ref::<Budget>().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    // An evaluation is on one thread; the counter is atomic because a value of CEL must be one for all.
    let mut left = budget.0.load(Ordering::Relaxed);
    let enough = take(&mut left, &*value);
    budget.0.store(left, Ordering::Relaxed);
    if !enough {
        let what = format!("the evaluation takes more than {CEL_STEPS} steps");
        return Err(ExecutionError::function_error(CHARGE, what));
    }
    Ok(value)
}

/// Takes what a value weighs from the steps that are left; false where they are used up.
fn take(left: &mut u64, value: &dyn Val) -> bool {
    let bytes = if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        text.inner().len()
    } else if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
        bytes.inner().len()
    } else {
        0
    };
    let weight = 1 + u64::try_from(bytes / STEP_BYTES).unwrap_or(u64::MAX);
    let Some(rest) = left.checked_sub(weight) else {
        *left = 0;
        return false;
    };
    *left = rest;
    if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        return list.inner().iter().all(|item| take(left, &**item));
    }
    if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        return map.inner().values().all(|item| take(left, &**item));
    }
    true
}

/// A pattern of `matches`, compiled with the expression.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Fails with what is wrong, which does not repeat the pattern.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(text).size_limit(CEL_PATTERN_BYTES).build();
        built.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("a pattern of `matches` takes more than {CEL_PATTERN_BYTES} bytes when it is compiled")
            }
            _ => "a pattern of `matches` is no regular expression (RE2 syntax)".to_owned(),
        })
    }
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN_TYPE
    }

    fn cel_type() -> &'static Type {
        &PATTERN_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

fn find<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = arguments.first().and_then(|value| value.downcast_ref::<CelString<'_>>());
    let pattern = arguments.get(1).and_then(|value| value.downcast_ref::<Pattern>());
    let (Some(text), Some(pattern)) = (text, pattern) else { return Err(ExecutionError::MissingArgumentOrTarget) };
    Ok(CowVal::owned(CelBool::from(pattern.0.is_match(text.inner()))))
}
