//! An expression of the CEL dialect: read within its limits or refused with a place in the text, and evaluated within its
//! steps to the same outcome by the filter, by the explanation and by the index.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate_routing::cel::Expression;
use tidegate_routing::filter::{explain_view, matches_all_view};
use tidegate_routing::{EventView, Filter, Matcher, SubscriptionId, TopicName, TopicPattern};
use tidegate_schemas::{Data, Event, Value as Attribute};

static EVENTS: LazyLock<[Event; 4]> = LazyLock::new(|| {
    let list = format!("[{}0]", "0,".repeat(2_000));
    let json =
        format!(r#"{{"a": {{"b": [1, 1.5, "x", null, true]}}, "list": {list}, "text": "{}"}}"#, "ab".repeat(5_000));
    let least = Event::builder("1", "/s", "a");
    let full = Event::builder("-7", "https://example.com/shop", "com.example.order.placed")
        .subject("order-\u{1f600}1%_\\")
        .extension("a", Attribute::Integer(i32::MIN))
        .extension("b", Attribute::Boolean(true))
        .extension("c", Attribute::Binary("TRUE".into()));
    let text = Event::builder("1", "/s", "a").data(Data::Text("text".into()));
    let binary = Event::builder("1", "/s", "a").data(Data::Binary(vec![0, 255].into()));
    let events = [least, full.data(Data::Json(json.into())), text, binary];
    events.map(|builder| builder.build().expect("the attributes keep the rules"))
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
    assert_eq!(Expression::parse(expression.text()).as_ref(), Ok(&expression));
    let filters = [Filter::Cel(expression)];
    let matcher = Matcher::build([(SubscriptionId(7), &TOPICS[..], &filters[..])]);
    for event in &*EVENTS {
        let view = EventView::new(event);
        let passes = matches_all_view(&filters, &view);
        let explanation = explain_view(&filters, &view);
        assert_eq!((explanation.matched, explanation.failed.is_empty()), (passes, passes), "{explanation:?}");
        let mut found = Vec::new();
        matcher.matches_view(&TOPIC, &view, &mut found);
        assert_eq!(!found.is_empty(), passes, "the index and the filter differ");
    }
});
