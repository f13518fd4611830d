//! Random filters and events for tests.

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_schemas::{Event, Value as Attribute};

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
    let leaf = prop_oneof![leaf, sql.prop_map(|text| json!({"sql": text}))];
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
    ("[abc]{1,2}", "/[xyz]{1,2}", prop::option::of("[xyz]{1,2}"), ext).prop_map(|(kind, source, subject, ext)| {
        let mut builder = Event::builder("1", source, kind);
        if let Some(subject) = subject {
            builder = builder.subject(subject);
        }
        if let Some(ext) = ext {
            builder = builder.extension("ext", ext);
        }
        builder.build().expect("the attributes keep the rules")
    })
}
