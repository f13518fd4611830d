//! Evaluation (CESQL 3.3 to 3.7). Recursion is bounded by the depth that parsing allows.

use std::borrow::Cow;
use std::sync::Arc;

use tidegate_schemas::{Event, Value as AttributeValue};

use super::ast::{Arithmetic, Attribute, Comparison, Connective, Literal, Node, NodeId, Tree};
use super::functions::{Function, Parameter};
use super::value::{Type, Value};
use super::{ErrorKind, Evaluation, EvaluationError};

/// Arguments of a call up to which no list is allocated.
const INLINE_ARGUMENTS: usize = 4;

/// A value, or the value that a node has in spite of an error in it.
type Outcome<'a> = Result<Value<'a>, Value<'a>>;

pub(super) fn evaluate<'a>(tree: &'a Tree, functions: &'a [Arc<Function>], event: &'a Event) -> Evaluation<'a> {
    let mut evaluator = Evaluator { tree, functions, event, errors: Some(Vec::new()) };
    let (Ok(value) | Err(value)) = evaluator.node(tree.root());
    Evaluation { value, errors: evaluator.errors.unwrap_or_default() }
}

pub(super) fn matches(tree: &Tree, functions: &[Arc<Function>], event: &Event) -> bool {
    let mut evaluator = Evaluator { tree, functions, event, errors: None };
    evaluator.node(tree.root()) == Ok(Value::Boolean(true))
}

/// The node that keeps the event from passing, with what it gives; nothing where the event passes.
pub(super) fn failing_part<'a>(
    tree: &'a Tree,
    functions: &'a [Arc<Function>],
    event: &'a Event,
) -> Option<(NodeId, Evaluation<'a>)> {
    let mut evaluator = Evaluator { tree, functions, event, errors: Some(Vec::new()) };
    evaluator.failing_part(tree.root(), true)
}

struct Evaluator<'a> {
    tree: &'a Tree,
    functions: &'a [Arc<Function>],
    event: &'a Event,
    /// Nothing where nobody asks for the errors, so that the first ends the evaluation.
    errors: Option<Vec<EvaluationError>>,
}

impl<'a> Evaluator<'a> {
    fn node(&mut self, id: NodeId) -> Outcome<'a> {
        match self.tree.node(id) {
            Node::Literal(Literal::Boolean(flag)) => Ok(Value::Boolean(*flag)),
            Node::Literal(Literal::Integer(number)) => Ok(Value::Integer(*number)),
            Node::Literal(Literal::String(text)) => Ok(Value::String(Cow::Borrowed(text))),
            Node::Attribute(attribute) => self.attribute(id, attribute),
            Node::Exists(attribute) => Ok(Value::Boolean(self.find(attribute).is_some())),
            Node::Not(operand) => boolean(self.boolean(*operand).map(|flag| !flag)),
            Node::Negate(operand) => {
                let Some(number) = self.integer(*operand) else { return Err(Type::Integer.zero()) };
                self.computed(id, number.checked_neg())
            }
            Node::Connective(Connective::And, operands) => boolean(self.and(operands)),
            Node::Connective(Connective::Or, operands) => boolean(self.or(operands)),
            Node::Connective(Connective::Xor, operands) => boolean(self.xor(operands)),
            Node::Comparison(comparison, left, right) => boolean(self.compare(*comparison, *left, *right)),
            Node::Arithmetic(arithmetic, left, right) => {
                let Some((left, right)) = self.integers(*left, *right) else { return Err(Type::Integer.zero()) };
                self.arithmetic(id, *arithmetic, left, right)
            }
            Node::Like { operand, pattern, negated } => match self.node(*operand) {
                Ok(value) => Ok(Value::Boolean(pattern.matches(&value.into_text()) != *negated)),
                Err(_) => Err(Type::Boolean.zero()),
            },
            Node::In { operand, elements, negated } => {
                boolean(self.contains(*operand, elements).map(|contains| contains != *negated))
            }
            Node::Call { name, arguments, function } => {
                match function.and_then(|index| self.functions.get(index as usize)) {
                    Some(function) => self.call(id, function, arguments),
                    None => {
                        let count = arguments.len();
                        self.fail(id, ErrorKind::MissingFunction, || {
                            format!("there is no function {name} that takes {count} arguments")
                        });
                        Err(Type::Boolean.zero())
                    }
                }
            }
        }
    }

    /// As [`failing_part`], of a node. The `outermost` must be `true`, an operand of a conjunction is cast to a Boolean.
    fn failing_part(&mut self, id: NodeId, outermost: bool) -> Option<(NodeId, Evaluation<'a>)> {
        if let Node::Connective(Connective::And, operands) = self.tree.node(id) {
            return operands.iter().find_map(|operand| self.failing_part(*operand, false));
        }
        let outcome = self.node(id);
        let passes = match &outcome {
            Ok(Value::Boolean(flag)) => *flag,
            Ok(value) if !outermost => match self.cast(id, value.clone(), Type::Boolean) {
                Some(cast) => cast == Value::Boolean(true),
                None => false,
            },
            Ok(_) | Err(_) => false,
        };
        let (Ok(value) | Err(value)) = outcome;
        let errors = self.errors.as_mut().map(std::mem::take).unwrap_or_default();
        (!passes).then_some((id, Evaluation { value, errors }))
    }

    #[cold]
    fn fail(&mut self, id: NodeId, kind: ErrorKind, message: impl FnOnce() -> String) {
        if let Some(errors) = &mut self.errors {
            errors.push(EvaluationError { kind, span: self.tree.span(id), message: message() });
        }
    }

    /// Whether nothing more is to be evaluated once something failed.
    fn fails_fast(&self) -> bool {
        self.errors.is_none()
    }

    fn find(&self, attribute: &Attribute) -> Option<Value<'a>> {
        let event = self.event;
        if attribute.core {
            return event.attribute(&attribute.name).map(Value::String);
        }
        Some(match event.extension(&attribute.name)? {
            AttributeValue::Boolean(flag) => Value::Boolean(*flag),
            AttributeValue::Integer(number) => Value::Integer(*number),
            other => Value::String(other.canonical()),
        })
    }

    fn attribute(&mut self, id: NodeId, attribute: &Attribute) -> Outcome<'a> {
        self.find(attribute).ok_or_else(|| {
            self.fail(id, ErrorKind::MissingAttribute, || format!("the event has no attribute `{}`", attribute.name));
            Type::Boolean.zero()
        })
    }

    /// The value as another type; nothing where it has none, which is then told.
    fn cast(&mut self, id: NodeId, value: Value<'a>, target: Type) -> Option<Value<'a>> {
        let from = value.value_type();
        if from == target {
            return Some(value);
        }
        let cast = value.cast(target);
        if cast.is_none() {
            self.fail(id, ErrorKind::Cast, || format!("cannot make a {target} of this {from}"));
        }
        cast
    }

    /// The value of an operand that has to be a Boolean; nothing where it failed.
    fn boolean(&mut self, id: NodeId) -> Option<bool> {
        let value = self.node(id).ok()?;
        self.cast(id, value, Type::Boolean)?.to_boolean()
    }

    /// The value of an operand that has to be an Integer; nothing where it failed.
    fn integer(&mut self, id: NodeId) -> Option<i32> {
        let value = self.node(id).ok()?;
        self.cast(id, value, Type::Integer)?.to_integer()
    }

    fn integers(&mut self, left: NodeId, right: NodeId) -> Option<(i32, i32)> {
        let left = self.integer(left);
        if left.is_none() && self.fails_fast() {
            return None;
        }
        let right = self.integer(right);
        Some((left?, right?))
    }

    fn and(&mut self, operands: &[NodeId]) -> Option<bool> {
        for operand in operands {
            // One that failed is `false` (3.3), and behind a `false` nothing may be evaluated (3.4.2).
            if !self.boolean(*operand)? {
                return Some(false);
            }
        }
        Some(true)
    }

    fn or(&mut self, operands: &[NodeId]) -> Option<bool> {
        let mut failed = false;
        for operand in operands {
            match self.boolean(*operand) {
                Some(true) if !failed => return Some(true),
                Some(_) => {}
                None if self.fails_fast() => return None,
                None => failed = true,
            }
        }
        (!failed).then_some(false)
    }

    fn xor(&mut self, operands: &[NodeId]) -> Option<bool> {
        let mut result = Some(false);
        for operand in operands {
            let flag = self.boolean(*operand);
            if flag.is_none() && self.fails_fast() {
                return None;
            }
            result = result.zip(flag).map(|(result, flag)| result != flag);
        }
        result
    }

    fn compare(&mut self, comparison: Comparison, left: NodeId, right: NodeId) -> Option<bool> {
        let ordering = match comparison {
            Comparison::Equal => return self.equal(left, right),
            Comparison::NotEqual => return self.equal(left, right).map(|equal| !equal),
            Comparison::Less => i32::lt,
            Comparison::LessOrEqual => i32::le,
            Comparison::Greater => i32::gt,
            Comparison::GreaterOrEqual => i32::ge,
        };
        self.integers(left, right).map(|(left, right)| ordering(&left, &right))
    }

    fn equal(&mut self, left_id: NodeId, right: NodeId) -> Option<bool> {
        let left = self.node(left_id);
        if left.is_err() && self.fails_fast() {
            return None;
        }
        // What most comparisons are: every value is a String too, and the literal needs no value of its own.
        if let Node::Literal(Literal::String(text)) = self.tree.node(right) {
            return Some(left.ok()?.into_text() == **text);
        }
        let right = self.node(right);
        let (left, right) = (left.ok()?, right.ok()?);
        // `=` is there for every type, so the right operand says which one is meant (3.7).
        let left = self.cast(left_id, left, right.value_type())?;
        Some(left == right)
    }

    fn contains(&mut self, operand: NodeId, elements: &[NodeId]) -> Option<bool> {
        let operand = self.node(operand).ok();
        if operand.is_none() && self.fails_fast() {
            return None;
        }
        let mut found = Some(false);
        for element in elements {
            // What most sets are made of: it cannot fail and needs no value of its own.
            if let (Some(Value::String(operand)), Node::Literal(Literal::String(text))) =
                (&operand, self.tree.node(*element))
            {
                found = found.map(|found| found || **operand == **text);
                continue;
            }
            let value = self.node(*element).ok();
            let equal = match (&operand, value) {
                // The left operand says which type is meant (3.7).
                (Some(operand), Some(value)) => {
                    self.cast(*element, value, operand.value_type()).map(|value| value == *operand)
                }
                _ => None,
            };
            if equal.is_none() && self.fails_fast() {
                return None;
            }
            found = found.zip(equal).map(|(found, equal)| found || equal);
        }
        found
    }

    /// The result of a computation, or the error that there is none of 32 bits.
    fn computed(&mut self, id: NodeId, result: Option<i32>) -> Outcome<'a> {
        result.map(Value::Integer).ok_or_else(|| {
            self.fail(id, ErrorKind::Math, || "the result does not fit an Integer".to_owned());
            Type::Integer.zero()
        })
    }

    fn arithmetic(&mut self, id: NodeId, arithmetic: Arithmetic, left: i32, right: i32) -> Outcome<'a> {
        let result = match arithmetic {
            Arithmetic::Divide | Arithmetic::Remainder if right == 0 => {
                self.fail(id, ErrorKind::Math, || "division by zero".to_owned());
                return Err(Type::Integer.zero());
            }
            Arithmetic::Multiply => left.checked_mul(right),
            Arithmetic::Divide => left.checked_div(right),
            // The quotient of the least Integer and -1 does not fit, the remainder is 0.
            Arithmetic::Remainder => Some(left.wrapping_rem(right)),
            Arithmetic::Add => left.checked_add(right),
            Arithmetic::Subtract => left.checked_sub(right),
        };
        self.computed(id, result)
    }

    // Its list of arguments would make the frame of every other node as large.
    #[inline(never)]
    fn call(&mut self, id: NodeId, function: &Function, arguments: &[NodeId]) -> Outcome<'a> {
        let mut inline: [Value<'a>; INLINE_ARGUMENTS] = std::array::from_fn(|_| Value::Boolean(false));
        let mut listed;
        let values = if let Some(values) = inline.get_mut(..arguments.len()) {
            values
        } else {
            listed = vec![Value::Boolean(false); arguments.len()];
            &mut listed[..]
        };
        let mut failed = false;
        for (index, (argument, value)) in arguments.iter().zip(&mut *values).enumerate() {
            let cast = match (self.node(*argument), function.parameter(index)) {
                (Ok(argument), Parameter::Any) => Some(argument),
                (Ok(evaluated), Parameter::Of(target)) => self.cast(*argument, evaluated, target),
                (Err(_), _) => None,
            };
            match cast {
                Some(cast) => *value = cast,
                None if self.fails_fast() => return Err(function.returns().zero()),
                None => failed = true,
            }
        }
        if failed {
            return Err(function.returns().zero());
        }
        function.call(values).map_err(|failure| {
            self.fail(id, failure.kind, || format!("{}: {}", function.name(), failure.message));
            failure.value
        })
    }
}

/// The outcome of an operator that gives a Boolean.
fn boolean<'a>(result: Option<bool>) -> Outcome<'a> {
    result.map(Value::Boolean).ok_or(Value::Boolean(false))
}
