//! Events of every kind that can be told apart, and what came of them: compared by a hash of their attributes and bytes, and
//! never as JSON values, which forgive.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use serde_json::value::RawValue;
use tidegate_schemas::{Data, Event, Value as Typed, protobuf};
use tidegate_tests::checker::Verdict;
use tidegate_tests::client::Client;
use tidegate_tests::cluster::order;
use tidegate_tests::load::{self, Message};
use tidegate_tests::sink::Delivery;

/// The count that a bridge changes.
const HOPS: &str = "tidegatehops";
/// Blanks, quotes, percent signs and letters of every width.
const ODD: &str = " 100% \"quoted\"; %41, \\ ü € 漢 🦀 ";
/// Offsets, fractions and small letters that a library would write in another way.
const TIMES: [&str; 6] = [
    "2026-01-31T08:00:00.120000000Z",
    "2026-01-31T08:00:00.1+05:30",
    "1999-12-31T23:59:59.999999999-23:59",
    "2026-01-31t08:00:00.000000000000001z",
    "0001-01-01T00:00:00Z",
    "2016-12-31T23:59:60.5Z",
];
/// The value of an extension of bytes.
const OCTETS: &[u8] = b"\x00\xff bytes";
/// Kinds of events; a producer goes round them.
const KINDS: u64 = 10;
/// The number of an event that is large, of the first producers.
const LARGE: u64 = 13;
const LARGE_PRODUCERS: usize = 4;

/// An event as it must be wherever it arrives: attributes as their text, and the payload, which may be none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Good {
    attributes: BTreeMap<String, String>,
    data: Option<Bytes>,
}

impl Good {
    fn set(&mut self, name: &str, text: impl Into<String>) {
        self.attributes.insert(name.to_owned(), text.into());
    }

    /// A hash of all that it is; lengths come first, so that no part can pass for another.
    fn fingerprint(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |part: &[u8]| {
            bytes.extend_from_slice(&part.len().to_le_bytes());
            bytes.extend_from_slice(part);
        };
        for (name, text) in &self.attributes {
            put(name.as_bytes());
            put(text.as_bytes());
        }
        if let Some(data) = &self.data {
            put(b"");
            put(data);
        }
        digest(&SHA256, &bytes).as_ref().to_vec()
    }
}

/// What a producer's event `n` is.
pub(crate) fn good(producer: usize, n: u64) -> Good {
    let mut good = Good::default();
    good.set("specversion", "1.0");
    good.set("id", load::id(producer, n));
    good.set("source", format!("/load/p{producer}?a=%25%C3%BC"));
    good.set("type", "com.example.ü.load");
    good.set("partitionkey", format!("key-{producer}{ODD}"));
    let place = usize::try_from(n).unwrap_or(0);
    if n % 4 != 3 {
        // The Protobuf format has instants, so that a text of another form would not come in as it is.
        good.set("time", if n % KINDS == 1 { "2026-01-31T08:00:00.123456789Z" } else { TIMES[place % TIMES.len()] });
    }
    if n % 3 != 2 {
        good.set("subject", format!("orders/{n}{ODD}"));
        good.set("dataschema", "https://example.com/schema?x=%20&y=a#part");
        good.set("comexamplenote", ODD.repeat(place % 5 + 1));
    }
    let filler = load::payload(producer, n);
    let blank = format!(
        "\n {{ \"n\" :\t{n},\r\n  \"f\": 1.50, \"big\": 12345678901234567890123, \"e\":1E+2,\n \"twice\":1, \"twice\":2, \"esc\":\"\\u00fc\\/\", \"of\": {filler} }} \r\n"
    );
    let all_bytes: Vec<u8> = (0..=255).cycle().skip(place % 256).take(300 + place % 700).collect();
    let (content_type, data) = match n % KINDS {
        0 => ("application/json; charset=UTF-8".to_owned(), Some(blank.into_bytes())),
        1 => ("application/octet-stream".to_owned(), Some(all_bytes)),
        2 => ("text/plain; charset=utf-8".to_owned(), Some(format!("line\r\n\t{ODD}\0{filler}").into_bytes())),
        3 => ("text/plain;charset=iso-8859-1".to_owned(), Some(b"gr\xfc\xdfe \x00\xff".to_vec())),
        4 if n % 20 == 4 => (String::new(), None),
        4 => ("application/json".to_owned(), None),
        5 if n % 20 == 5 => ("text/plain".to_owned(), Some(Vec::new())),
        5 => ("application/octet-stream".to_owned(), Some(Vec::new())),
        6 => ("application/xml".to_owned(), Some(format!("<a b=\"'\">{ODD}</a>\n").into_bytes())),
        7 => (String::new(), Some(all_bytes)),
        8 => (format!("application/vnd.x+json; profile=\"{}\"", "p".repeat(300)), Some(blank.into_bytes())),
        _ => ("application/cloudevents+json".to_owned(), Some(format!("{{ \"within\":{filler}}}").into_bytes())),
    };
    if !content_type.is_empty() {
        good.set("datacontenttype", content_type);
    }
    if n % KINDS == 1 {
        good.set("comexamplebytes", STANDARD.encode(OCTETS));
        good.set("comexampleuri", "urn:example:a?b=%20");
    }
    if n % KINDS == 6 {
        good.set("comexampleint", "-2147483648");
        good.set("comexamplebool", "true");
        good.set("comexampleempty", "");
    }
    good.data = data.map(Bytes::from);
    if n == LARGE && producer < LARGE_PRODUCERS {
        let (text, repeated) = (load::payload(producer, 600), 300 + 150 * producer);
        good.data = Some(text.repeat(repeated).into());
    }
    good
}

/// The request that publishes it: in binary mode where that can carry it, else in the JSON or the Protobuf format.
pub(crate) fn message(producer: usize, n: u64) -> Message {
    let good = good(producer, n);
    let data = good.data.clone().unwrap_or_default();
    let structured = |content_type: &str, body: Bytes| Message {
        headers: vec![("content-type".to_owned(), content_type.to_owned())],
        body,
    };
    match n % KINDS {
        5 | 6 | 7 | 9 => {
            let quoted = |text: &str| Value::from(text).to_string();
            let mut members: Vec<String> = Vec::new();
            for (name, text) in &good.attributes {
                let is_typed = matches!(name.as_str(), "comexampleint" | "comexamplebool");
                members.push(format!("{}: {}", quoted(name), if is_typed { text.clone() } else { quoted(text) }));
            }
            members.push(match n % KINDS {
                6 => format!("\"data\":{}", quoted(&String::from_utf8_lossy(&data))),
                9 => format!("\"data\": {}", String::from_utf8_lossy(&data)),
                _ => format!("\"data_base64\": \"{}\"", STANDARD.encode(&data)),
            });
            structured("application/cloudevents+json; charset=utf-8", format!("{{ {} }}", members.join(", ")).into())
        }
        1 => {
            let of = |name: &str| good.attributes[name].clone();
            let mut event = Event::builder(of("id"), of("source"), of("type"));
            for (name, text) in &good.attributes {
                event = match name.as_str() {
                    "specversion" | "id" | "source" | "type" => event,
                    "time" => event.time(text.clone()),
                    "subject" => event.subject(text.clone()),
                    "dataschema" => event.data_schema(text.clone()),
                    "datacontenttype" => event.data_content_type(text.clone()),
                    "comexamplebytes" => event.extension(name.clone(), Typed::Binary(Bytes::from_static(OCTETS))),
                    "comexampleuri" => event.extension(name.clone(), Typed::Uri(text.clone().into())),
                    _ => event.extension(name.clone(), Typed::String(text.clone().into())),
                };
            }
            let event = event.data(Data::Binary(data)).build().expect("what is made here is an event");
            structured("application/cloudevents+protobuf", protobuf::to_bytes(&event))
        }
        _ => {
            let header = |(name, text): (&String, &String)| match name.as_str() {
                "datacontenttype" => ("content-type".to_owned(), text.clone()),
                _ => (format!("ce-{name}"), encoded(text)),
            };
            Message { headers: good.attributes.iter().map(header).collect(), body: data }
        }
    }
}

fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        0x21..=0x7e if byte != b'"' && byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn decoded(value: &[u8]) -> String {
    let (mut bytes, mut rest) = (Vec::new(), value);
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|error| panic!("a header that is no UTF-8: {error}"))
}

/// What a sink was given, with the count of hops beside it. HTTP does not tell no payload from an empty one.
fn delivered(delivery: &Delivery) -> (Good, Option<String>) {
    let content_type =
        delivery.headers.get("content-type").map(|value| value.to_str().expect("it is ASCII").to_owned());
    let mut good = Good::default();
    if content_type.as_deref().is_some_and(|it| it.starts_with("application/cloudevents+json")) {
        let document = std::str::from_utf8(&delivery.body).expect("JSON is UTF-8");
        good = of_json(document);
    } else {
        for (name, value) in &delivery.headers {
            if let Some(name) = name.as_str().strip_prefix("ce-") {
                good.set(name, decoded(value.as_bytes()));
            }
        }
        if let Some(content_type) = content_type {
            good.set("datacontenttype", content_type);
        }
        good.data = Some(delivery.body.clone());
    }
    let hops = good.attributes.remove(HOPS);
    (good, hops)
}

/// The event of a JSON document, whose payload is taken as the very bytes that stand there.
fn of_json(document: &str) -> Good {
    let members: HashMap<String, &RawValue> = serde_json::from_str(document).expect("an event is an object");
    let mut good = Good::default();
    let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
    for (name, raw) in &members {
        match name.as_str() {
            "data" | "data_base64" => {}
            _ => good.set(name, text(raw)),
        }
    }
    let media_type = good.attributes.get("datacontenttype").map_or("application/json", String::as_str);
    let media_type = media_type.split(';').next().unwrap_or_default();
    let is_json = media_type.ends_with("json");
    good.data = match (members.get("data"), members.get("data_base64")) {
        (Some(raw), _) if is_json => Some(Bytes::from(raw.get().to_owned())),
        (Some(raw), _) => Some(text(raw).into()),
        (None, Some(raw)) => Some(STANDARD.decode(text(raw)).expect("it is base64").into()),
        (None, None) => None,
    };
    good
}

/// Judges what a sink was given: all that was acknowledged must be there, whole, in the order of its key, after so many hops.
pub(crate) fn judge(acknowledged: &[u64], deliveries: &[Delivery], hops: &str) -> Verdict {
    let order = order(deliveries);
    let mut verdict = Verdict {
        acknowledged: acknowledged.iter().sum(),
        read: deliveries.len() as u64,
        duplicates: order.repeats as u64,
        disordered: order.early,
        ..Verdict::default()
    };
    let mut seen: Vec<Vec<bool>> =
        acknowledged.iter().map(|count| vec![false; usize::try_from(*count).unwrap_or(0)]).collect();
    for delivery in deliveries {
        let Some((producer, n)) = load::parse_id(&delivery.id).filter(|(producer, _)| *producer < seen.len()) else {
            verdict.unknown.push(delivery.id.clone());
            continue;
        };
        let mut wanted = good(producer, n);
        wanted.data.get_or_insert_default();
        let (mut came, made) = delivered(delivery);
        came.data.get_or_insert_default();
        if came.fingerprint() != wanted.fingerprint() || made.as_deref() != Some(hops) {
            verdict.altered.push(format!("{}: {}, hops {made:?}", delivery.id, difference(&wanted, &came)));
        }
        if let Some(seen) = usize::try_from(n).ok().and_then(|n| seen[producer].get_mut(n)) {
            *seen = true;
        }
    }
    for (producer, seen) in seen.iter().enumerate() {
        for n in (0_u64..).zip(seen).filter_map(|(n, seen)| (!seen).then_some(n)) {
            verdict.lost += 1;
            if verdict.lost_examples.len() < Verdict::EXAMPLES {
                verdict.lost_examples.push(load::id(producer, n));
            }
        }
    }
    verdict.altered.truncate(Verdict::EXAMPLES);
    verdict.disordered.truncate(Verdict::EXAMPLES);
    verdict
}

/// Reads a topic back and says which events are not what they were published as. Here no payload and an empty one differ, and
/// blanks around a JSON payload, which the JSON format leaves out, do not count.
pub(crate) async fn altered_in(client: &Client, topic: &str) -> Vec<String> {
    let (mut altered, mut path) = (Vec::new(), format!("/topics/{topic}/events?from=earliest&limit=1000"));
    loop {
        let page = client.get(&path).await.unwrap_or_else(|error| panic!("{path}: {error}")).expect(200);
        let text = std::str::from_utf8(&page.body).expect("JSON is UTF-8");
        let batch: Vec<&RawValue> = serde_json::from_str(text).expect("a batch is an array");
        for document in &batch {
            let mut came = of_json(document.get());
            came.attributes.remove(HOPS);
            let Some((producer, n)) = load::parse_id(&came.attributes["id"]) else { continue };
            let mut wanted = good(producer, n);
            if matches!(n % KINDS, 0 | 8 | 9) {
                for data in [&mut came.data, &mut wanted.data].into_iter().flatten() {
                    *data = Bytes::copy_from_slice(data.trim_ascii());
                }
            }
            if came.fingerprint() != wanted.fingerprint() {
                altered.push(format!("{} in {topic}: {}", load::id(producer, n), difference(&wanted, &came)));
            }
        }
        match page.next_page() {
            Some(next) if !batch.is_empty() => path = next,
            _ => return altered,
        }
    }
}

/// How an event differs from what it was.
fn difference(before: &Good, after: &Good) -> String {
    let short = |data: &Option<Bytes>| {
        let data = data.as_ref().map(|data| (data.len(), data.slice(..data.len().min(400))));
        format!("{data:?}")
    };
    let mut text = String::new();
    for name in
        before.attributes.keys().chain(after.attributes.keys().filter(|name| !before.attributes.contains_key(*name)))
    {
        let (was, is) = (before.attributes.get(name), after.attributes.get(name));
        if was != is {
            text.push_str(&format!("{name} {was:?} became {is:?}; "));
        }
    }
    if before.data != after.data {
        text.push_str(&format!("data {} became {}", short(&before.data), short(&after.data)));
    }
    text
}

/// The control: whatever is changed about an event is found.
#[test]
fn the_control_each_change_is_found() {
    for n in 0..KINDS {
        let before = good(0, n);
        assert_eq!(before.fingerprint(), good(0, n).fingerprint());
        let unnoticed = |change: fn(&mut Good)| {
            let mut after = before.clone();
            change(&mut after);
            after != before && after.fingerprint() == before.fingerprint()
        };
        assert!(!unnoticed(|good| good.set("subject", "other")));
        assert!(!unnoticed(|good| good.set("comexamplenote", ODD.trim())));
        assert!(!unnoticed(|good| drop(good.attributes.remove("partitionkey"))));
        assert!(!unnoticed(
            |good| good.data = good.data.as_ref().map(|data| data.slice(..data.len().saturating_sub(1)))
        ));
        assert!(!unnoticed(|good| good.data = good.data.is_none().then(Bytes::new)));
    }
    let same = |a: &str, b: &str| of_json(a).fingerprint() == of_json(b).fingerprint();
    assert!(same(r#"{"id":"1","data":{"a":1}}"#, r#"{"data":{"a":1},"id":"1"}"#));
    assert!(!same(r#"{"id":"1","data":{"a":1}}"#, r#"{"id":"1","data":{"a": 1}}"#), "a blank within");
    assert!(!same(r#"{"id":"1","data":{"a":1.0}}"#, r#"{"id":"1","data":{"a":1}}"#), "the same number");
    assert!(!same(r#"{"id":"1"}"#, r#"{"id":"1","data_base64":""}"#), "no payload and an empty one");
}
