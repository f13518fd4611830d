//! Edge cases of the JSON format, each decided by a clause.

use bytes::Bytes;
use serde_json::Value;
use tidegate_schemas::json::ReadError;
use tidegate_schemas::{Data, Event, Limits, json};

use crate::round_trip::check_every_format;
use crate::tally::{Tally, json_file, testdata};

fn read(document: impl Into<Bytes>) -> Result<Event, ReadError> {
    json::read(document.into(), &Limits::default())
}

#[test]
fn edge_cases() {
    let Some(folder) = testdata("events") else { return };
    let mut tally = Tally::new("events/json_edge_cases.json");
    for case in json_file(&folder.join("json_edge_cases.json"))["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let is_valid = case["valid"].as_bool().unwrap();
        let result = match (read(document(case)), is_valid) {
            (Ok(event), true) => check_every_format(&event),
            (Err(_), false) => Ok(()),
            (Ok(_), false) => Err("is invalid and was taken".to_owned()),
            (Err(error), true) => Err(format!("is valid and was refused: {error}")),
        };
        match case["level"].as_str() {
            Some("MAY") => tally.open(name, Ok(())),
            _ => tally.decided(name, result),
        }
    }
    tally.finish();
}

fn document(case: &Value) -> Vec<u8> {
    if let Some(raw) = case["raw"].as_str() {
        return raw.as_bytes().to_vec();
    }
    let mut event = case["event"].clone();
    for (member, repeated) in case["expand"].as_object().into_iter().flatten() {
        let count = repeated[1].as_u64().unwrap() as usize;
        event[member] = Value::String(repeated[0].as_str().unwrap().repeat(count));
    }
    serde_json::to_vec(&event).unwrap()
}

const CONTEXT: &str = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;

fn with(members: &str) -> Result<Event, ReadError> {
    read(format!("{{{CONTEXT},{members}}}"))
}

#[test]
fn kinds_of_payload() {
    let json = |text: &'static str| Data::Json(Bytes::from_static(text.as_bytes()));
    let binary = |text: &'static str| Data::Binary(Bytes::from_static(text.as_bytes()));
    let cases = [
        (r#""subject":"x""#, Data::None),
        (r#""data":null"#, json("null")),
        (r#""data":  { "b": 1.10, "a" : [1e2] }  "#, json(r#"{ "b": 1.10, "a" : [1e2] }"#)),
        (r#""data":"{\"a\":1}""#, json(r#""{\"a\":1}""#)),
        (r#""data":"{\"a\":1}","datacontenttype":"text/plain""#, Data::Text("{\"a\":1}".into())),
        (r#""datacontenttype":"Text/JSON;x=y","data":"a""#, json("\"a\"")),
        (r#""data":"","datacontenttype":"text/plain""#, Data::Text("".into())),
        (r#""data_base64":"e30=","datacontenttype":"application/json""#, binary("{}")),
        (r#""data_base64":"ab\/\/""#, Data::Binary(Bytes::from_static(b"\x69\xbf\xff"))),
        (r#""data_base64":"""#, binary("")),
        (r#""data_base64":null"#, Data::None),
    ];
    for (members, expected) in cases {
        let event = with(members).unwrap_or_else(|error| panic!("{members}: {error}"));
        assert_eq!(event.data(), &expected, "{members}");
    }
}

#[test]
fn faults_are_named_all_at_once() {
    let document = r##"{"specversion":"1.1","id":7,"source":"a b","type":"","MyExt":1,"n":1.5,"n2":1e9999,"o":{},
        "time":"noon","datacontenttype":"x","dataschema":"#","subject":"","data_base64":"*","dup":1,"dup":2,
        "nul":null,"nul":1,"i":2147483648,"bad":"\ud800"}"##;
    let Err(ReadError::Invalid(faults)) = read(document) else { panic!("taken") };
    let mut named: Vec<&str> = faults.0.iter().map(|fault| &*fault.attribute).collect();
    named.sort_unstable();
    let expected = [
        "MyExt",
        "bad",
        "data_base64",
        "datacontenttype",
        "dataschema",
        "dup",
        "i",
        "id",
        "n",
        "n2",
        "nul",
        "o",
        "source",
        "specversion",
        "subject",
        "time",
        "type",
    ];
    assert_eq!(named, expected, "{faults}");
    assert!(faults.0.iter().all(|fault| !fault.reason.is_empty() && !fault.reason.ends_with('.')), "{faults}");
}

#[test]
fn duplicates_are_faults_whatever_their_value() {
    for members in [
        r#""id":"1""#,
        r#""subject":null,"subject":"a""#,
        r#""subject":"a","subject":null"#,
        r#""x":null,"x":null"#,
        r#""data":1,"data":1"#,
        r#""data_base64":null,"data_base64":"""#,
        r#""data":null,"data_base64":"""#,
        r#""x":1,"\u0078":1"#,
    ] {
        assert!(matches!(with(members), Err(ReadError::Invalid(_))), "{members}");
    }
}

#[test]
fn malformed_documents_name_the_place() {
    let cases: [(&[u8], usize, usize); 5] = [
        (b"", 1, 0),
        (b"{\n\"id\": \"1\",\n  oops}", 3, 3),
        (b"{} {}", 1, 4),
        (b"{\"id\":\"1\"\n,\"x\":\"\xff\"}", 2, 7),
        (b"{\"id\":", 1, 6),
    ];
    for (document, line, column) in cases {
        let Err(ReadError::Malformed(malformed)) = read(document.to_vec()) else {
            panic!("{}", document.escape_ascii())
        };
        assert_eq!((malformed.line, malformed.column), (line, column), "{malformed}");
        assert!(!malformed.reason.contains(" at line "), "{malformed}");
    }
}

#[test]
fn what_is_no_object_is_no_event() {
    for document in ["[]", "1", "-1", "1.5", "true", "null", "\"a\"", "[[{}],1]"] {
        assert!(matches!(read(document), Err(ReadError::Invalid(_))), "{document}");
    }
}

#[test]
fn the_document_is_shared_and_not_copied() {
    let text = format!(r#"{{{CONTEXT},"subject":"plain","ext":"value","data":{{"a":[1,2,3]}}}}"#);
    let document = Bytes::from(text);
    let range = document.as_ptr_range();
    let event = json::read(document, &Limits::default()).unwrap();
    let parts =
        [event.id().as_bytes(), event.subject().unwrap().as_bytes(), &event.data().to_bytes()].map(|it| it.as_ptr());
    assert!(parts.iter().all(|part| range.contains(part)));
    let Some(tidegate_schemas::Value::String(extension)) = event.extension("ext") else { panic!() };
    assert!(range.contains(&extension.as_bytes().as_ptr()));
}

#[test]
fn lines_have_no_breaks_and_mean_the_same() {
    let event = with("\"data\":{\n\"a\":\r\n\"x\\ny\"}").unwrap();
    let mut line = Vec::new();
    json::write_line(&event, &mut line);
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
    let value: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(value["data"]["a"], "x\ny");
}

#[test]
fn lines_are_a_batch_of_which_every_fault_is_named() {
    let read = |text: &str| json::read_lines(Bytes::copy_from_slice(text.as_bytes()), &Limits::default());
    let event = format!("{{{CONTEXT}}}");
    for text in
        [format!("{event}\n\n \r\n{event}"), format!("{event}\r\n{event}\n"), format!("\u{feff}{event}\n{event}")]
    {
        assert_eq!(read(&text).map(|events| events.len()), Ok(2), "{text:?}");
    }
    assert_eq!(read("\n \n"), Ok(vec![]));
    let text = format!("{event}\n\n{{\"id\":\n{{}}\n{event}\n[{event}]\n{event} {event}");
    let Err(json::ReadBatchError::Invalid(faults)) = read(&text) else { panic!("taken") };
    let found: Vec<_> = faults.events.iter().map(|event| (event.index, event.faults.0.len())).collect();
    assert_eq!(found, [(1, 1), (2, 4), (4, 1), (5, 1)], "{faults}");
    assert!(faults.events[0].faults.0[0].reason.starts_with("line 3, byte "), "{faults}");
}
