//! Random filters and events for tests.

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_schemas::{Data, Event, Value as Attribute};

/// One filter in the form in which it is written. Names and texts are few, so that events match often enough.
pub(crate) fn filter_json() -> impl Strategy<Value = Value> {
    let pairs = prop_oneof![
        "[ab]{1,2}".prop_map(|kind| json!({"type": kind})),
        "[xy]".prop_map(|subject| json!({"subject": subject})),
        "[12]".prop_map(|number| json!({"ext": number})),
        ("[ab]", "[xy]").prop_map(|(kind, subject)| json!({"type": kind, "subject": subject})),
        ("[12]|a|true", "/[xy]").prop_map(|(text, source)| json!({"ext": text, "source": source})),
    ];
    let leaf =
        (prop_oneof!["exact", "exact", "prefix", "suffix"], pairs).prop_map(|(dialect, pairs)| json!({dialect: pairs}));
    let sql = prop_oneof![
        "type = '[ab]'( AND subject = '[xy]')?",
        "'[ab]' = type( XOR EXISTS subject)?",
        "(NOT )?\\((subject != '[xy]' AND )?type (NOT )?IN \\('[ab]', ('[abc]'|subject)\\)\\)",
        "type = '[ab]' OR \\(subject = '[xy]' AND type = '[abc]'\\)",
        "type = '[ab]' OR \\(EXISTS subject AND LENGTH\\(type\\) = [12]\\)",
        "type (NOT )?LIKE '([ab]%|%[ab]|[ab]_|%[ab]%|a%b)'",
        "(Ext|ext) (=|!=|<) ([12]|'[12]'|TRUE|'true'|'a')( AND TYPE = '[ab]')?",
        "('[12]'|'TRUE'|[12]) = ext",
        "ext (NOT )?IN \\(('1'|1), (TRUE|'a')\\)",
        "\\(type = '[ab]' AND source LIKE '/[xy]%'\\) OR \\(ext = '1' AND subject LIKE '%[xy]'\\)",
    ];
    let cel = prop_oneof![
        "event\\.type == '[ab]'( && event\\.subject == '[xy]')?",
        "'[ab]' == event\\.type (&&|\\|\\|) event\\.ext (==|!=|<) ([12]|'[12]'|true|'a')",
        "!?\\(event\\.subject in \\['[xy]', '[xyz]'\\] (&&|\\|\\|) event\\.data\\.n > [0-2]\\)",
        "event\\['type'\\]\\.(startsWith|endsWith|contains|matches)\\('[ab]'\\)",
        "\\(event\\.type == 'a' \\|\\| event\\.source\\.endsWith\\('[xy]'\\)\\) && !?has\\(event\\.(subject|ext|data|data\\.n)\\)",
        "event\\.data\\.list\\.(exists|all|exists_one)\\(x, x (>|==) [0-2]\\)",
        "event\\.(data|data\\.n|data\\.list|ext) == ([0-2]|'a'|b'a'|\\[0, 1\\]|null)",
        "event\\.type == 'a' \\? event\\.data\\.n == [0-2] : event\\.subject != '[xy]'",
    ];
    let leaf = prop_oneof![
        2 => leaf,
        1 => sql.prop_map(|text| json!({"sql": text})),
        1 => cel.prop_map(|text| json!({"cel": text})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|filters| json!({"all": filters})),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|filters| json!({"any": filters})),
            inner.prop_map(|filter| json!({"not": filter})),
        ]
    })
}

/// Events that such filters are about.
pub(crate) fn events() -> impl Strategy<Value = Event> {
    let ext = prop_oneof![
        Just(None),
        (0..3).prop_map(|number| Some(Attribute::Integer(number))),
        any::<bool>().prop_map(|flag| Some(Attribute::Boolean(flag))),
        "[12]|a|TRUE".prop_map(|text| Some(Attribute::String(text.into()))),
    ];
    let data = prop_oneof![
        Just(Data::None),
        Just(Data::Text("a".into())),
        Just(Data::Binary("a".into())),
        "[0-2]|null|\\{\\}|\\{\"n\":([0-3]|1\\.5|\"a\")\\}|\\{\"list\":\\[(0|0,1|2,\"a\")\\]\\}"
            .prop_map(|text| Data::Json(text.into())),
    ];
    let subject = prop::option::of("[xyz]{1,2}");
    ("[abc]{1,2}", "/[xyz]{1,2}", subject, ext, data).prop_map(|(kind, source, subject, ext, data)| {
        let mut builder = Event::builder("1", source, kind).data(data);
        if let Some(subject) = subject {
            builder = builder.subject(subject);
        }
        if let Some(ext) = ext {
            builder = builder.extension("ext", ext);
        }
        builder.build().expect("the attributes keep the rules")
    })
}
