use serde_json::json;
use tidegate_schemas::limits::{CEL_BYTES, CEL_COMPREHENSIONS, CEL_DEPTH, CEL_NODES, CEL_STEPS, JSON_DEPTH};
use tidegate_schemas::{Data, Event, Value as Attribute};

use super::*;

fn builder() -> tidegate_schemas::EventBuilder {
    Event::builder("7", "/shop", "com.example.placed")
        .subject("order-1")
        .time("2026-10-21T07:28:00Z")
        .extension("count", Attribute::Integer(3))
        .extension("flag", Attribute::Boolean(true))
        .extension("region", Attribute::String("eu".into()))
        .extension("raw", Attribute::Binary("ab".into()))
        .extension("link", Attribute::Uri("https://example.com/".into()))
}

fn event() -> Event {
    let data = json!({
        "amount": 120, "price": 1.5, "large": u64::MAX, "none": null, "name": "Käse\n", "vip": true,
        "lines": [{"sku": "a", "count": 2}, {"sku": "b", "count": 0}], "tags": ["x", "y"], "order": {"id": "o-1", "a.b": 1},
    });
    builder().data(Data::Json(data.to_string().into())).build().unwrap()
}

/// What an expression says of an event, or its error.
fn outcome(text: &str, event: &Event) -> Result<bool, String> {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let view = EventView::new(event);
    let passes = expression.matches(&view);
    match expression.failing_part(&view) {
        None => {
            assert!(passes, "{text}");
            Ok(true)
        }
        Some(FailingPart { error, .. }) => {
            assert!(!passes, "{text}");
            error.map_or(Ok(false), Err)
        }
    }
}

#[track_caller]
fn check(text: &str, expected: bool) {
    assert_eq!(outcome(text, &event()), Ok(expected), "{text}");
}

#[test]
fn attributes_have_the_types_that_are_documented() {
    check(
        "event.id == '7' && event.source == '/shop' && event.type == 'com.example.placed' && event.specversion == '1.0'",
        true,
    );
    check("event.subject == 'order-1' && event.time > '2026-10-21' && event['region'] in ['eu', 'us']", true);
    check("event.count == 3 && event.flag && event.raw == b'ab' && event.link.endsWith('/')", true);
    check("event.count == '3'", false);
    check(
        "type(event.count) == int && type(event.flag) == bool && type(event.raw) == bytes && type(event.time) == string",
        true,
    );
    check("has(event.subject) && !has(event.datacontenttype) && !has(event.nothing)", true);
}

#[test]
fn data_has_the_types_that_are_documented() {
    check("event.data.amount > 100", true);
    check(
        "event.data.amount + 1 == 121 && event.data.price > 1 && event.data.large > 5u && event.data.none == null",
        true,
    );
    check("type(event.data.amount) == int && type(event.data.price) == double && type(event.data.large) == uint", true);
    check("event.data.name == 'Käse\\n' && size(event.data.name) == 5", true);
    check("event.data.lines.exists(l, l.sku == 'b' && l.count == 0) && event.data.lines[0].count == 2", true);
    check(
        "event.data.tags == ['x', 'y'] && 'x' in event.data.tags && 'amount' in event.data && size(event.data.tags) == 2",
        true,
    );
    check("event.data.order == {'id': 'o-1', 'a.b': 1} && event.data.order['a.b'] == 1", true);
    check("event.data.lines.map(l, l.sku) == ['a', 'b'] && event.data.lines.filter(l, l.count > 0).size() == 1", true);
    check("has(event.data.order.id) && !has(event.data.order.name)", true);
    let text = builder().data(Data::Text("hello".into())).build().unwrap();
    assert_eq!(outcome("event.data.startsWith('he') && type(event.data) == string", &text), Ok(true));
    let binary = builder().data(Data::Binary(vec![0, 255].into())).build().unwrap();
    assert_eq!(outcome("event.data == b'\\x00\\xff' && size(event.data) == 2", &binary), Ok(true));
    let none = builder().build().unwrap();
    assert_eq!(outcome("has(event.data)", &none), Ok(false));
    assert_eq!(outcome("event.data == null", &none), Err("there is no `data`".to_owned()));
}

#[test]
fn an_expression_without_a_bool_lets_nothing_through() {
    let error = |text: &str| outcome(text, &event()).unwrap_err();
    assert_eq!(error("event.nothing == 1"), "there is no `nothing`");
    assert_eq!(error("event.count"), "it gives a value of the type int, and a filter gives a bool");
    assert!(error("event.data.amount > 'x'").contains("_>_"));
    assert!(error("event.data.amount / 0 == 1").contains("zero"));
    assert_eq!(error("event.data.nothing.more == 1"), "there is no `nothing`");
    // What is false decides, whatever the rest is.
    check("event.nothing == 1 && false", false);
    check("(event.nothing == 1 && false) || true", true);
    check("event.nothing == 1 || true", true);
}

#[test]
fn patterns_are_compiled_with_the_expression() {
    check("event.type.matches('^com[.].*placed$') && matches(event.subject, 'order-[0-9]+')", true);
    check("event.type.matches('^org') || event.data.tags.exists(t, t.matches('y'))", true);
    check("event.type.matches('z') && event.subject.matches('order')", false);
}

#[track_caller]
fn refuse(text: &str, expected: &str) {
    let error = Expression::parse(text).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with(expected), "{text}: {error}");
}

#[test]
fn faults_name_their_place_and_how_to_mend_them() {
    refuse("", "line 1, column 1: the expression is empty");
    refuse("event.type == 'a' AND true", "line 1, column 19: ");
    refuse("true &&\n event.type = 'a'", "line 2, column 13: ");
    refuse("'ä' == = 1", "line 1, column 8: ");
    refuse("'ä' == evnt.type", "line 1, column 8: there is no variable of this name");
    refuse("'ä' == event.type &&\n  tpye == 'x'", "line 2, column 3: there is no variable of this name");
    refuse("event.Type == 'a'", "line 1, column 6: no event has an attribute of this name");
    refuse("event['Type'] == 'a'", "line 1, column 7: no event has an attribute of this name");
    refuse("event == 1", "line 1, column 1: `event` is no value by itself");
    refuse("event.type.lower() == 'a'", "line 1, column 17: there is no function of this name");
    refuse("timestamp(event.time) > 1", "line 1, column 10: there is no function of this name; times are text");
    refuse(
        "event.type.startsWith() || true",
        "line 1, column 22: `startsWith` is not called in this way; write `x.startsWith(y)`",
    );
    refuse("event.type.matches(event.subject)", "line 1, column 19: the pattern of `matches` is not written out");
    refuse("event.type.matches('(')", "line 1, column 1: a pattern of `matches` is no regular expression");
    refuse("event.type.matches('(\\\\w{100}){100}')", "line 1, column 1: a pattern of `matches` takes more than");
    refuse("has(event)", "line 1, column ");
    refuse("event.data.?x == 1", "line 1, column ");
    refuse("Message{a: 1} == 1", "line 1, column ");
    refuse("event.data.exists(event, true)", "line 1, column ");
    for (text, mend) in [
        ("event.type == 'a' AND true", "write `&&`"),
        ("event.type = 'a'", "write `==`"),
        ("true & true", "write `&&`"),
    ] {
        let error = Expression::parse(text).map(|_| ()).unwrap_err().to_string();
        assert!(error.ends_with(mend), "{error}");
    }
}

#[test]
fn expressions_are_bounded() {
    let parse = |text: &str| Expression::parse(text).map(|_| ()).map_err(|error| error.what);
    let says = |text: String, what: &str| {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(what), "{text:.60}: {error}");
    };
    says(format!("event.type == '{}'", "x".repeat(CEL_BYTES)), "bytes and may have");
    for (open, close) in [("(", ")"), ("[", "]"), ("!(", ")"), ("size(", ")"), ("{'a': ", "}"), ("true ? true : ", "")]
    {
        let nested = |levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
        says(nested(CEL_DEPTH + 1), "nested deeper than");
        says(nested(1_000), if open.len() > 4 { "bytes" } else { "nested deeper than" });
    }
    says(format!("1{}", " + 1".repeat(CEL_DEPTH + 1)), "nested deeper than");
    says(format!("event.data{}", ".a".repeat(CEL_DEPTH + 1)), "nested deeper than");
    // A long conjunction, a long list and what is nested as deeply as may be.
    assert_eq!(parse(&vec!["event.count > 1"; 100].join(" && ")), Ok(()));
    assert_eq!(parse(&format!("event.type in ['{}']", vec!["com.example"; 200].join("', '"))), Ok(()));
    assert_eq!(parse(&format!("{}true{}", "(".repeat(CEL_DEPTH), ")".repeat(CEL_DEPTH))), Ok(()));
    assert_eq!(parse(&format!("event.data{} == 1", ".a".repeat(CEL_DEPTH - 3))), Ok(()));
    says(format!("1 in [{}]", vec!["1"; CEL_NODES + 1].join(",")), "parts");
    let comprehensions =
        |levels: usize| (0..levels).fold("true".to_owned(), |inner, level| format!("[1].all(x{level}, {inner})"));
    assert_eq!(parse(&comprehensions(CEL_COMPREHENSIONS)), Ok(()));
    says(comprehensions(CEL_COMPREHENSIONS + 1), "stand within each other");
}

#[test]
fn the_steps_of_an_evaluation_are_bounded() {
    let list = format!("[{}]", vec!["1"; 5_000].join(","));
    let text = "a".repeat(800_000);
    let data = format!(r#"{{"list": {list}, "text": "{text}"}}"#);
    let event = builder().data(Data::Json(data.into())).build().unwrap();
    let exceeded = Err(format!("the evaluation takes more than {CEL_STEPS} steps"));
    assert_eq!(outcome("event.data.list.all(x, x == 1)", &event), Ok(true));
    assert_eq!(outcome("event.data.list.all(x, event.data.list.all(y, x == y))", &event), exceeded);
    assert_eq!(outcome("event.data.list.exists(x, event.data.text.contains('b'))", &event), exceeded);
    assert_eq!(outcome("event.data.list.map(x, event.data.text).size() == 1", &event), exceeded);
    let doubled = format!("size({}) > 1", vec!["event.data.text"; CEL_DEPTH - 8].join(" + "));
    assert_eq!(outcome(&doubled, &event), exceeded);
    let copies = format!("size([{}]) == 100", vec!["event.data.text"; 100].join(", "));
    assert_eq!(outcome(&copies, &event), exceeded);
    assert_eq!(outcome("event.data.text.startsWith('a') && size(event.data.text + 'x') == 800001", &event), Ok(true));
}

#[test]
fn data_that_is_no_json_or_too_deep_is_an_error() {
    let of = |text: String| builder().data(Data::Json(text.into())).build().unwrap();
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(outcome("size(event.data) == 1", &of(nested(JSON_DEPTH))), Ok(true));
    // An event that was stored under other rules.
    let deeper = Data::Json(nested(JSON_DEPTH + 1).into());
    let error = data::value_of(&deeper).map(|_| ()).unwrap_err();
    assert!(error.contains("nested deeper than 64 levels"), "{error}");
    let error = data::value_of(&Data::Json("{\"x\": 1} 2".into())).map(|_| ()).unwrap_err();
    assert!(error.contains("no JSON"), "{error}");
}

#[test]
fn what_the_event_has_is_told_as_text() {
    let event = event();
    let of = |name: &str| text_of(&EventView::new(&event), name);
    assert_eq!(of("count").as_deref(), Some("3"));
    assert_eq!(of("data.name").as_deref(), Some("Käse\n"));
    assert_eq!(of("data.tags").as_deref(), Some("[\"x\",\"y\"]"));
    assert_eq!((of("data.tags.x"), of("database"), of("data.order.name")), (None, None, None));
    let large = format!("{{\"list\": [{}0], \"deep\": {{\"list\": [{}0]}}}}", "0,".repeat(999), "0,".repeat(999));
    let event = builder().data(Data::Json(large.into())).build().unwrap();
    let of = |name: &str| text_of(&EventView::new(&event), name);
    assert_eq!(of("data.list").as_deref(), Some("a list of 1000"));
    assert_eq!(of("data").as_deref(), Some("a map of 2"));
}

#[test]
fn data_is_parsed_once_and_only_where_it_is_asked_for() {
    let event = event();
    let view = EventView::new(&event);
    let of = |text: &str| Expression::parse(text).unwrap();
    assert!(!of("event.type == 'x' && event.data.amount > 100").matches(&view));
    assert!(!view.is_parsed(), "what decides before is evaluated before");
    assert!(of("event.data.amount > 100").matches(&view));
    assert!(view.is_parsed());
    let first = view.data().unwrap().map(std::ptr::from_ref);
    assert!(of("event.data.vip").matches(&view));
    assert!(std::ptr::addr_eq(first.unwrap(), std::ptr::from_ref(view.data().unwrap().unwrap())));
}

#[test]
fn what_an_event_must_have_is_found() {
    let demands = |text: &str| {
        let expression = Expression::parse(text).unwrap();
        let either = |alternatives: &Alternatives| {
            let one = |demand: &crate::demand::Demand| {
                format!("{} {:?} {}", demand.attribute, demand.comparison, demand.text)
            };
            alternatives.iter().map(one).collect::<Vec<_>>().join(" or ")
        };
        expression.demands().map(either).collect::<Vec<_>>()
    };
    assert_eq!(
        demands("event.type == 'a' && 'x' == event['region'] && event.data.amount > 1"),
        ["type Exact a", "region Exact x"]
    );
    assert_eq!(
        demands("event.type in ['b', 'a'] && event.id.startsWith('c')"),
        ["type Exact a or type Exact b", "id Prefix c"]
    );
    assert_eq!(
        demands("event.type == 'a' || (event.data.x && event.id.endsWith('z'))"),
        ["type Exact a or id Suffix z"]
    );
    for open in [
        "event.type != 'a'",
        "!(event.type == 'a')",
        "event.type == 'a' || true",
        "event.type in [event.id]",
        "event.data == 'a'",
        "event.count == 3",
        "event.type == 'a' ? true : false",
        "event.id.startsWith('')",
    ] {
        assert!(demands(open).is_empty(), "{open}");
    }
}
