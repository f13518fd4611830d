//! An expression of the CESQL dialect: read within its limits or refused with a place in the text, printed so that it is
//! read as the same, and evaluated to the same outcome by the filter, by the evaluation that tells all errors, by the
//! explanation and by the index.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate_routing::cesql::{Expression, Value};
use tidegate_routing::{Filter, Matcher, SubscriptionId, TopicName, TopicPattern, explain};
use tidegate_schemas::limits::CESQL_BYTES;
use tidegate_schemas::{Event, Value as Attribute};

static EVENTS: LazyLock<[Event; 2]> = LazyLock::new(|| {
    let least = Event::builder("1", "/s", "a");
    let full = Event::builder("-7", "https://example.com/shop", "com.example.order.placed")
        .subject("order-\u{1f600}1%_\\")
        .extension("a", Attribute::Integer(i32::MIN))
        .extension("b", Attribute::Boolean(true))
        .extension("c", Attribute::String("TRUE".into()));
    [least, full].map(|builder| builder.build().expect("the attributes keep the rules"))
});

static TOPIC: LazyLock<TopicName> = LazyLock::new(|| TopicName::parse("t").expect("the name keeps the rules"));
static TOPICS: LazyLock<[TopicPattern; 1]> = LazyLock::new(|| [TOPIC.clone().into()]);

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let expression = match Expression::parse(text) {
        Ok(expression) => expression,
        Err(error) => {
            assert!(text.is_char_boundary(error.position.offset), "{error:?}");
            assert!(error.position.line <= 1 + text.matches('\n').count(), "{error:?}");
            return;
        }
    };
    let printed = expression.to_string();
    if printed.len() <= CESQL_BYTES {
        let again = Expression::parse(&printed);
        assert_eq!(again.as_ref(), Ok(&expression), "printed as {printed}");
    }
    for event in &*EVENTS {
        let evaluation = expression.evaluate(event);
        for error in &evaluation.errors {
            assert!(text.get(error.span.clone()).is_some_and(|part| !part.is_empty()), "{error:?}");
        }
        let passes = evaluation.value == Value::Boolean(true) && evaluation.errors.is_empty();
        assert_eq!(expression.matches(event), passes, "{evaluation:?}");
        let filters = [Filter::Sql(expression.clone())];
        assert_eq!(explain(&filters, event).matched, passes);
        let mut found = Vec::new();
        Matcher::build([(SubscriptionId(7), &TOPICS[..], &filters[..])]).matches(&TOPIC, event, &mut found);
        assert_eq!(!found.is_empty(), passes, "the index and the filter differ");
    }
});
