//! Schemas of what other crates write: they know nothing of OpenAPI.

use std::borrow::Cow;

use serde_json::json;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{Object, ObjectBuilder, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The JSON format of CloudEvents.
pub(in crate::edge::native) struct CloudEvent;

impl ToSchema for CloudEvent {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("CloudEvent")
    }
}

impl PartialSchema for CloudEvent {
    fn schema() -> RefOr<Schema> {
        let mut object = ObjectBuilder::new()
            .description(Some(
                "A CloudEvent 1.0 in its JSON format. Further members are extension attributes: names of a-z and 0-9, values \
                 that are strings, booleans or integers of 32 bits.",
            ))
            .property("data", ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some("Any JSON value.")));
        let attributes = [
            ("specversion", "`1.0`."),
            ("id", "Together with `source` what identifies the event."),
            ("source", "A URI reference: where it comes from."),
            ("type", "What kind of event it is."),
            ("subject", "What it is about."),
            ("time", "RFC 3339."),
            ("datacontenttype", "The media type of the data."),
            ("dataschema", "A URI: which schema the data follows."),
            ("partitionkey", "Events of one key are delivered in order."),
            ("deliverat", "RFC 3339: it is not delivered before, and has no order."),
            ("expirytime", "RFC 3339: it is not delivered afterwards."),
            ("data_base64", "Data that is no text, in base64."),
        ];
        for (name, meaning) in attributes {
            object = object.property(name, text(meaning));
        }
        ["specversion", "id", "source", "type"]
            .into_iter()
            .fold(object, ObjectBuilder::required)
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .examples([json!({
                "specversion": "1.0", "id": "A-1", "source": "/shop", "type": "com.example.order.placed",
                "partitionkey": "customer-7", "datacontenttype": "application/json", "data": {"amount": 120}
            })])
            .into()
    }
}

/// One filter of a subscription.
pub(in crate::edge::native) struct Filter;

impl ToSchema for Filter {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Filter")
    }
}

impl PartialSchema for Filter {
    fn schema() -> RefOr<Schema> {
        let pairs = |meaning: &str| {
            ObjectBuilder::new()
                .schema_type(Type::Object)
                .description(Some(meaning))
                .additional_properties(Some(AdditionalProperties::RefOr(text("").into())))
        };
        let list = |meaning: &str| {
            ArrayBuilder::new().items(Ref::from_schema_name("Filter")).min_items(Some(1)).description(Some(meaning))
        };
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some(
                "A filter of the CloudEvents Subscriptions API, or `cel`: an object with exactly one member, the dialect.",
            ))
            .property("exact", pairs("Attributes that have exactly these values."))
            .property("prefix", pairs("Attributes that begin with these texts."))
            .property("suffix", pairs("Attributes that end with these texts."))
            .property("all", list("Every one passes."))
            .property("any", list("At least one passes."))
            .property("not", Ref::from_schema_name("Filter"))
            .property("sql", text("An expression of CloudEvents SQL; `cesql` is read too."))
            .property("cel", text("An expression of CEL over `event`, its attributes and its data."))
            .examples([
                json!({"sql": "type = 'com.example.order.placed' AND region IN ('eu', 'us')"}),
                json!({"cel": "event.data.amount > 100"}),
            ])
            .into()
    }
}

/// Who declared a resource.
pub(in crate::edge::native) fn origin() -> Schema {
    let word = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["api", "first-use"]));
    let file = ObjectBuilder::new().property("file", text("The file that owns it.")).required("file");
    let one = OneOfBuilder::new().description(Some("Who declared it, and so who may change it.")).item(word).item(file);
    Schema::OneOf(one.build())
}

/// Which attribute is the key of events.
pub(in crate::edge::native) fn key_from() -> Object {
    words("Which attribute is the key of the topic's events.", &["partitionkey", "subject"])
}

/// What becomes of records of a topic that are no events.
pub(in crate::edge::native) fn foreign() -> Object {
    words(
        "What becomes of records that are no CloudEvents: they are delivered wrapped in an event, or become dead letters.",
        &["wrap", "dead-letter"],
    )
}

/// Which events of a subscription wait for each other.
pub(in crate::edge::native) fn order() -> Object {
    words("Which events wait for each other: those of one key, or none.", &["key", "none"])
}

/// How an event stands in a request.
pub(in crate::edge::native) fn mode() -> Object {
    words("How an event stands in a request to the sink.", &["binary", "structured"])
}

/// The question for a sink's consent.
pub(in crate::edge::native) fn handshake() -> Object {
    ObjectBuilder::new()
        .description(Some("The consent that the sink is asked for (CloudEvents HTTP web hooks, section 4)."))
        .property("origin", text("Who asks: a name of the DNS."))
        .property("rate", ObjectBuilder::new().schema_type(Type::Integer).description(Some("Requests per minute.")))
        .required("origin")
        .build()
}

/// What follows when the attempts of an event are used up.
pub(in crate::edge::native) fn on_exhausted() -> Object {
    let meaning = "What follows when the attempts of an event are used up: it is dead-lettered and its key goes on, or its \
                   key stands still until somebody resumes it.";
    words(meaning, &["continue", "pauseKey"])
}

/// Why an event could not be delivered.
pub(in crate::edge::native) fn cause() -> Object {
    let number = || ObjectBuilder::new().schema_type(Type::Integer);
    ObjectBuilder::new()
        .description(Some("Where the event comes from and what happened to it."))
        .property("subscription", text("The subscription that could not deliver it."))
        .property("sink", text("The sink that was called."))
        .property("topic", text("The topic of the original event."))
        .property("partition", number())
        .property("position", number())
        .property("reason", words("Why.", &["rejected", "exhausted", "loop", "expired"]))
        .property("status", number().description(Some("What the sink answered last, where it did.")))
        .property("detail", text("The beginning of that answer, or what went wrong."))
        .property("attempts", number())
        .property("firstAttemptAt", number().description(Some("Milliseconds since 1970.")))
        .property("lastAttemptAt", number().description(Some("Milliseconds since 1970.")))
        .property("editedFrom", text("The letter that this one stands for, with an event that somebody edited."))
        .build()
}

/// How an attempt ended.
pub(in crate::edge::native) fn ending() -> Object {
    words(
        "How it ended: the sink took the event, it is tried again, it became a dead letter, or it did not count, because the \
         sink could not be reached, or because its answer paused the subscription.",
        &["done", "retry", "dead", "unreachable", "paused"],
    )
}

/// Why a subscription does not want an event.
pub(in crate::edge::native) fn explanation() -> Object {
    let found = ObjectBuilder::new().property("name", text("The attribute.")).property(
        "value",
        text("What the event has there; null where it has nothing.")
            .schema_type(SchemaType::from_iter([Type::String, Type::Null])),
    );
    let failed = ObjectBuilder::new()
        .property("path", text("Where it stands in the filters.").examples([json!("filters[0].exact.type")]))
        .property("predicate", text("What did not hold."))
        .property(
            "negated",
            ObjectBuilder::new().schema_type(Type::Boolean).description(Some("It held, below a `not`.")),
        )
        .property("found", ArrayBuilder::new().items(found))
        .property("error", text("Why the expression could not be evaluated."));
    ObjectBuilder::new()
        .description(Some("Which predicates kept the event from passing."))
        .property("matched", ObjectBuilder::new().schema_type(Type::Boolean))
        .property("failed", ArrayBuilder::new().items(failed))
        .property(
            "omitted",
            ObjectBuilder::new().schema_type(Type::Integer).description(Some("How many more there are.")),
        )
        .build()
}

/// What was found in resource files.
pub(in crate::edge::native) fn diagnostics() -> Schema {
    let number = || ObjectBuilder::new().schema_type(Type::Integer);
    let diagnostic = ObjectBuilder::new()
        .property("severity", words("How bad it is.", &["error", "warning"]))
        .property("file", text("The file, as it was named."))
        .property("line", number())
        .property("column", number())
        .property("what", text("What is wrong."))
        .property("mend", text("How to mend it."));
    Schema::Array(ArrayBuilder::new().items(diagnostic).description(Some("What should be known.")).build())
}

/// A text that may be missing.
fn text(meaning: &str) -> ObjectBuilder {
    let object = ObjectBuilder::new().schema_type(Type::String);
    if meaning.is_empty() { object } else { object.description(Some(meaning)) }
}

fn words(meaning: &str, words: &[&'static str]) -> Object {
    text(meaning).enum_values(Some(words.iter().copied())).build()
}
