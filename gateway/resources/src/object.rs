//! A subscription as the JSON object of the CloudEvents Subscriptions API, which requests carry.
//!
//! It is read by the readers of files: the object becomes the same tree, whose places are numbers of a table of JSON
//! pointers, and its parts are put where a file has them. So both ways in know the same keys and refuse the same faults.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::json;
use tidegate_routing::filter::{Filter, parse_filters};
use tidegate_schemas::limits::{YAML_DEPTH, YAML_NODES};

use super::Origin;
use super::cross;
use super::diagnostic::{Diagnostic, Place, Severity};
use super::document::{Collected, Header, subscription_name};
use super::reader::{Field, Fields, Reader};
use super::subscription::{self, Subscription};
use super::yaml::{Content, Entry, Node};

/// What the origin of such a subscription says in the place of a file.
const REQUEST: &str = "request";
/// What the gateway says of a subscription beside what it was asked for; given back, it is not read.
const TOLD: [&str; 2] = ["origin", "status"];

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFault {
    /// Where, as a JSON pointer (RFC 6901); empty where the object as a whole is meant.
    pub pointer: String,
    /// What is wrong and how to mend it, in one sentence without a full stop.
    pub reason: String,
}

/// Which id a subscription gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    /// That of the path: the object has none, or the same.
    OfPath(String),
    /// The one in the object, or this one.
    Generated(String),
}

/// Reads the object of a subscription. Its `types` and `source` become filters before its own. The error holds every
/// fault.
pub fn subscription_of_object(body: &[u8], id: Id) -> Result<Subscription, Vec<ObjectFault>> {
    let mut table = Table::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = Part { table: &mut table, pointer: String::new() }
        .deserialize(&mut deserializer)
        .and_then(|node| deserializer.end().map(|()| node));
    let node = match read {
        Ok(node) => node,
        Err(error) => {
            return Err(vec![ObjectFault { pointer: String::new(), reason: format!("is not read as JSON: {error}") }]);
        }
    };
    let file: Arc<str> = REQUEST.into();
    let mut reader = Reader::new(Arc::clone(&file), &|_| None);
    reader.reads_files = false;
    for place in &table.doubled {
        reader.fault(*place, "the key is written twice", "remove one");
    }
    let mut collected = Collected::default();
    collected.subscriptions.extend(read_object(&mut reader, &Field::root(&node), id));
    let mut diagnostics = reader.diagnostics;
    diagnostics.extend(cross::check(&collected));
    diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
    match collected.subscriptions.pop() {
        Some((subscription, _)) if diagnostics.is_empty() => Ok(subscription),
        _ => {
            diagnostics.sort_by_key(|diagnostic| diagnostic.place);
            Err(diagnostics.iter().map(|diagnostic| table.fault(diagnostic)).collect())
        }
    }
}

fn read_object(reader: &mut Reader<'_>, root: &Field<'_>, id: Id) -> Option<(Subscription, subscription::Sites)> {
    let known =
        ["id", "source", "types", "filters", "sink", "sinkcredential", "protocol", "protocolsettings", "config"];
    let head = reader.map(root, &[&known[..], &TOLD].concat())?;
    let name = read_id(reader, &head, root, id);
    read_protocol(reader, &head);
    let asked = read_shorthands(reader, &head);
    let spec = spec_of(reader, &head, root);
    // A refused id hides no other fault.
    let (name, name_place) = name.unwrap_or_else(|| ("refused".to_owned(), root.node.place));
    let origin = Origin { file: Arc::clone(&reader.file), place: name_place };
    let spec = Field { path: String::new(), node: &spec, key_place: spec.place };
    let header = Header { name, name_place, origin, spec: Some(spec), place: root.node.place };
    let (mut subscription, sites) = subscription::read(reader, header)?;
    subscription.filters.splice(0..0, asked?);
    Some((subscription, sites))
}

fn read_id(reader: &mut Reader<'_>, head: &Fields<'_>, root: &Field<'_>, id: Id) -> Option<(String, Place)> {
    let field = head.get("id");
    let place = field.as_ref().map_or(root.node.place, |field| field.node.place);
    let (name, given) = match (id, field) {
        (Id::OfPath(path), None) | (Id::Generated(path), None) => (path, None),
        (id, Some(field)) => {
            let text = reader.text(&field)?;
            if let Id::OfPath(path) = id
                && path != text.value
            {
                reader.fault(place, format!("the path names `{path}` and the object `{}`", text.value), "remove `id`");
                return None;
            }
            (text.value.clone(), Some((field, text)))
        }
    };
    match (subscription_name(&name), given) {
        (Ok(name), _) => Some((name.to_string(), place)),
        (Err(reason), Some((field, text))) => {
            reader.fault_of_text(&field, &text, &reason);
            None
        }
        (Err(reason), None) => {
            reader.fault(place, format!("the id `{name}` {reason}"), "choose another id");
            None
        }
    }
}

/// Events go out by HTTP POST; what else the object could ask for is refused by name.
fn read_protocol(reader: &mut Reader<'_>, head: &Fields<'_>) {
    if let Some(field) = head.get("protocol") {
        reader.choice(&field, &[("HTTP", ())]);
    }
    if let Some(field) = head.get("sinkcredential") {
        reader.not_available(&field, "remove it; declare the subscription in a file, where secrets are only named");
    }
    if let Some(field) = head.get("protocolsettings")
        && let Some(settings) = reader.map(&field, &["method", "headers"])
    {
        if let Some(field) = settings.get("method") {
            reader.choice(&field, &[("POST", ())]);
        }
        if let Some(field) = settings.get("headers") {
            reader.not_available(&field, "remove it; headers may carry secrets, which only files name");
        }
    }
}

/// `source` and `types` as filters.
fn read_shorthands(reader: &mut Reader<'_>, head: &Fields<'_>) -> Option<Vec<Filter>> {
    let mut asked = Vec::new();
    let mut complete = true;
    if let Some(field) = head.get("source") {
        match reader.text(&field) {
            Some(text) if !text.value.is_empty() => asked.push(json!({ "exact": { "source": text.value } })),
            Some(_) => reader.fault(field.node.place, "`source` is empty", "name a source, or remove the key"),
            None => complete = false,
        }
    }
    if let Some(field) = head.get("types") {
        let mut exact = Vec::new();
        for item in reader.list(&field).unwrap_or_default() {
            match reader.text(&item) {
                Some(text) if !text.value.is_empty() => exact.push(json!({ "exact": { "type": text.value } })),
                Some(_) => reader.fault(item.node.place, format!("`{}` is empty", item.path), "name a type"),
                None => complete = false,
            }
        }
        match exact.len() {
            0 => {}
            1 => asked.append(&mut exact),
            _ => asked.push(json!({ "any": exact })),
        }
    }
    match parse_filters(&asked.into()) {
        Ok(filters) => complete.then_some(filters),
        Err(faults) => {
            for fault in faults {
                reader.fault(Place { line: 1, column: 1 }, fault.reason, "correct `source` and `types`");
            }
            None
        }
    }
}

/// What a file has as `spec`: the parts of `config`, with the filters and the sink from beside it.
fn spec_of(reader: &mut Reader<'_>, head: &Fields<'_>, root: &Field<'_>) -> Arc<Node> {
    let mut entries = Vec::new();
    let mut place = root.node.place;
    if let Some(field) = head.get("config") {
        place = field.node.place;
        if let Content::Map(written) = &field.node.content {
            for entry in written {
                if matches!(entry.key.as_str(), "signing" | "headers" | "tls") {
                    let what = format!(
                        "`config.{}` may name secrets and files of the gateway, and is for files only",
                        entry.key
                    );
                    reader.fault(entry.key_place, what, "remove it, or declare the subscription in a file");
                } else if matches!(entry.key.as_str(), "filters" | "sink") {
                    let what = format!("`config.{}` stands beside `config`, not in it", entry.key);
                    reader.fault(entry.key_place, what, "move it out");
                } else {
                    entries.push(copied(entry));
                }
            }
        } else {
            // Says that it must be a map.
            reader.open_map(&field);
        }
    }
    if let Content::Map(written) = &root.node.content {
        let beside = |entry: &&Entry| matches!(entry.key.as_str(), "filters" | "sink");
        // An empty list is what a subscription without filters is shown with.
        let says = |entry: &&Entry| !matches!(&entry.value.content, Content::List(items) if items.is_empty());
        entries.extend(written.iter().filter(beside).filter(says).map(copied));
    }
    Node::new(place, Content::Map(entries))
}

fn copied(entry: &Entry) -> Entry {
    Entry { key: entry.key.clone(), key_place: entry.key_place, value: Arc::clone(&entry.value) }
}

/// The JSON pointers of all values, each named by a place: its line counts from 1.
#[derive(Debug, Default)]
struct Table {
    pointers: Vec<String>,
    /// Keys that are written twice.
    doubled: Vec<Place>,
}

impl Table {
    fn place(&mut self, pointer: &str) -> Place {
        self.pointers.push(pointer.to_owned());
        Place { line: self.pointers.len(), column: 1 }
    }

    fn fault(&self, diagnostic: &Diagnostic) -> ObjectFault {
        let pointer = diagnostic.place.and_then(|place| self.pointers.get(place.line.wrapping_sub(1)));
        ObjectFault {
            pointer: pointer.cloned().unwrap_or_default(),
            reason: format!("{}; {}", diagnostic.what, diagnostic.mend),
        }
    }
}

/// Reads one value into the tree.
struct Part<'t> {
    table: &'t mut Table,
    pointer: String,
}

impl Part<'_> {
    fn place<E: serde::de::Error>(&mut self) -> Result<Place, E> {
        if self.table.pointers.len() >= YAML_NODES {
            return Err(E::custom(format!("it holds more than {YAML_NODES} values")));
        }
        if self.pointer.matches('/').count() >= YAML_DEPTH {
            return Err(E::custom(format!("it has more than {YAML_DEPTH} levels")));
        }
        Ok(self.table.place(&self.pointer))
    }

    fn scalar<E: serde::de::Error>(mut self, text: String, plain: bool) -> Result<Arc<Node>, E> {
        Ok(Node::new(self.place()?, Content::Scalar { text, plain }))
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Arc<Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Arc<Node>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Arc<Node>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(mut self) -> Result<Arc<Node>, E> {
        Ok(Node::new(self.place()?, Content::Null))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Arc<Node>, E> {
        self.scalar(value.to_string(), true)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Arc<Node>, E> {
        self.scalar(value.to_string(), true)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Arc<Node>, E> {
        self.scalar(value.to_string(), true)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Arc<Node>, E> {
        self.scalar(value.to_string(), true)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Arc<Node>, E> {
        self.scalar(value.to_owned(), false)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Arc<Node>, A::Error> {
        let place = self.place()?;
        let mut list = Vec::new();
        loop {
            let pointer = format!("{}/{}", self.pointer, list.len());
            match items.next_element_seed(Part { table: self.table, pointer })? {
                Some(item) => list.push(item),
                None => return Ok(Node::new(place, Content::List(list))),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Arc<Node>, A::Error> {
        let place = self.place()?;
        let mut seen = std::collections::HashSet::new();
        let mut entries = Vec::new();
        while let Some(key) = members.next_key::<String>()? {
            let pointer = format!("{}/{}", self.pointer, key.replace('~', "~0").replace('/', "~1"));
            let key_place = Part { table: self.table, pointer: pointer.clone() }.place::<A::Error>()?;
            let value = members.next_value_seed(Part { table: self.table, pointer })?;
            if seen.insert(key.clone()) {
                entries.push(Entry { key, key_place, value });
            } else {
                self.table.doubled.push(key_place);
            }
        }
        Ok(Node::new(place, Content::Map(entries)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Subscription, Vec<ObjectFault>> {
        subscription_of_object(body.as_bytes(), Id::Generated("generated".to_owned()))
    }

    #[test]
    fn the_object_means_what_a_file_means() {
        let object = read(
            r#"{"id": "large", "protocol": "HTTP", "protocolsettings": {"method": "POST"}, "sink": "https://example.com/a",
                "types": ["a", "b"], "source": "/s", "filters": [{"sql": "amount > 100"}], "status": {"standing": "active"},
                "config": {"topics": ["orders.*"], "delivery": {"order": "none", "maxInFlight": 7, "timeout": "3s",
                    "retry": {"maxAttempts": 2, "initial": "2s", "max": "1m"}, "deadLetterTopic": "lost", "from": "earliest"}}}"#,
        )
        .unwrap();
        let file = super::super::parse(
            "f.yaml",
            "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {name: large}\nspec:\n  topics: ['orders.*']\n  sink: https://example.com/a\n  \
             filters: [{exact: {source: /s}}, {any: [{exact: {type: a}}, {exact: {type: b}}]}, {sql: amount > 100}]\n  \
             delivery: {order: none, maxInFlight: 7, timeout: 3s, retry: {maxAttempts: 2, initial: 2s, max: 1m},\n    \
             deadLetterTopic: lost, from: earliest}\n",
            &|_| None,
        )
        .unwrap();
        let file = Subscription { origin: object.origin.clone(), ..file.subscriptions[0].clone() };
        assert_eq!(object, file);
    }

    #[test]
    fn every_fault_is_told_with_its_pointer() {
        let faults = read(
            r#"{"id": "a b", "sink": "ftp://x", "protocol": "http", "typs": [1], "types": [7], "sinkcredential": {},
                "filters": [{"exact": {"type": 3}}, {"sqll": "x"}], "sink": "http://example.com",
                "config": {"topics": [], "delivery": {"timeout": 5, "maxInFlght": 3, "a/b~c": 1}, "sink": "x"}}"#,
        )
        .unwrap_err();
        let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        for pointer in [
            "/id",
            "/sink",
            "/protocol",
            "/typs",
            "/types/0",
            "/sinkcredential",
            "/filters/0/exact/type",
            "/filters/1/sqll",
            "/config/sink",
        ] {
            assert!(pointers.contains(&pointer), "{pointer}: {faults:#?}");
        }
        let told = |pointer: &str, reason: &str| {
            faults.iter().any(|fault| fault.pointer == pointer && fault.reason.contains(reason))
        };
        assert!(told("/typs", "`typs` is not known; did you mean `types`?"), "{faults:#?}");
        assert!(told("/sink", "unknown scheme") && told("/sink", "written twice"), "{faults:#?}");

        let faults =
            read(r#"{"sink": "https://example.com", "config": {"topics": [], "delivery": {"maxInFlght": 3}}}"#);
        let faults = faults.unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:#?}");
        assert_eq!(faults[0].pointer, "/config/topics");
        assert_eq!(faults[1].pointer, "/config/delivery/maxInFlght");
        assert!(faults[1].reason.contains("did you mean `maxInFlight`?"), "{faults:#?}");
        assert_eq!(read(r#"{"sink": "https://a.example"}"#).unwrap_err()[0].pointer, "");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "[]", "7", "{", "{} x", "null", &"[".repeat(500), &format!("{{\"a\":{}}}", "[".repeat(100))] {
            assert_eq!(read(body).unwrap_err().len(), 1, "{body}");
        }
    }

    #[test]
    fn ids() {
        let body = r#"{"sink": "https://a.example", "config": {"topics": ["t"]}}"#;
        assert_eq!(read(body).unwrap().name, "generated");
        let of_path = |body: &str, id: &str| subscription_of_object(body.as_bytes(), Id::OfPath(id.to_owned()));
        assert_eq!(of_path(body, "mine").unwrap().name, "mine");
        assert_eq!(of_path(&body.replacen('{', r#"{"id": "mine","#, 1), "mine").unwrap().name, "mine");
        let faults = of_path(&body.replacen('{', r#"{"id": "other","#, 1), "mine").unwrap_err();
        assert_eq!(faults[0].pointer, "/id");
        assert!(of_path(body, "a b").is_err());
        assert!(read(&body.replacen('{', r#"{"source": "${env:HOME}","#, 1)).is_err(), "a request read a variable");
    }
}
