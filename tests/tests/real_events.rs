//! Real events, in every mode, through the real gateway and back: not a byte of data and not an attribute is lost.
#![allow(clippy::print_stdout, reason = "a test says how much it covered")]

use std::path::PathBuf;

use bytes::Bytes;
use http::HeaderMap;
use tidegate_schemas::limits::Limits;
use tidegate_schemas::{Event, http as binding, json};
use tidegate_tests::client::Client;
use tidegate_tests::home::Home;
use tidegate_tests::workspace_root;

/// Events of our own, for a clone without the collection: what is easily lost on the way.
const OWN: [&str; 4] = [
    r##"{"specversion":"1.0","id":"1","source":"/own","type":"t","time":"2026-01-02T03:04:05.123456789+05:30","data":{"big":12345678901234567890.12345,"b":1,"a":2}}"##,
    r##"{"specversion":"1.0","id":"2","source":"#fragment","type":"t","subject":"Euro € \"quoted\" 100%","datacontenttype":"text/plain","data":"line\nline"}"##,
    r##"{"specversion":"1.0","id":"3","source":"/own","type":"t","datacontenttype":"application/json","data_base64":"eyAieCIgOiAxIH0=","number":7,"flag":true}"##,
    r##"{"specversion":"1.0","id":"4","source":"/own","type":"t","data":null}"##,
];

/// The events with their names.
fn events() -> Vec<(String, Event)> {
    let read = |name: String, text: Vec<u8>| {
        let event = json::read(Bytes::from(text), &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, event)
    };
    let mut events: Vec<_> =
        OWN.iter().enumerate().map(|(index, text)| read(format!("own {index}"), text.as_bytes().to_vec())).collect();
    let folder: PathBuf =
        std::env::var_os("TIDEGATE_TESTDATA").map_or_else(|| "../shared/testdata".into(), PathBuf::from);
    let folder = workspace_root().join(folder);
    if !folder.is_dir() {
        println!("no test data at {}: only our own {} events are run", folder.display(), events.len());
        return events;
    }
    let own = events.len();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder.join("events/valid"))
        .expect("the collection has valid events")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    for path in files {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        events.push(read(name, std::fs::read(&path).expect("the file can be read")));
    }
    assert!(events.len() > own, "{} holds no events", folder.display());
    events
}

async fn publish(client: &Client, topic: &str, headers: HeaderMap, body: Bytes) {
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().expect("the binding writes ASCII").to_owned()))
        .collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let answer = client.post(&format!("/topics/{topic}"), &headers, body).await.expect("the gateway answers");
    let _receipt = answer.expect(202);
}

/// Everything on a topic, in order.
async fn read_back(client: &Client, topic: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut next = Some(format!("/topics/{topic}/events?from=earliest&limit=50"));
    while let Some(path) = next {
        let answer = client.get(&path).await.expect("the gateway answers").expect(200);
        next = answer.next_page();
        events.extend(json::read_batch(answer.body.clone(), &Limits::default()).expect("a batch is read back"));
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_events_survive_every_mode() {
    let home = Home::new();
    let gateway = home.start().await;
    let client = gateway.client();
    let events = events();
    for (_, event) in &events {
        let (headers, body) = binding::write_structured(event);
        publish(client, "structured", headers, body).await;
        let (headers, body) = binding::write_binary(event);
        publish(client, "binary", headers, body).await;
    }
    for batch in events.chunks(7) {
        let (headers, body) = binding::write_batch(batch.iter().map(|(_, event)| event));
        publish(client, "batch", headers, body).await;
    }
    for topic in ["structured", "batch", "binary"] {
        let back = read_back(client, topic).await;
        assert_eq!(back.len(), events.len(), "events on {topic}");
        for ((name, sent), received) in events.iter().zip(&back) {
            check(topic, name, sent, received);
        }
    }
    println!("{} events came back unchanged in each of three modes", events.len());
}

/// JSON keeps everything as it is. Headers carry every extension as text, and no header says of what kind the data is but
/// the content type, which is written down where it was only implied (CloudEvents HTTP binding 3.1).
fn check(topic: &str, name: &str, sent: &Event, received: &Event) {
    if topic != "binary" {
        assert_eq!(received, sent, "{name} on {topic}");
        return;
    }
    assert_eq!(received.data().as_bytes(), sent.data().as_bytes(), "data of {name} on {topic}");
    let implied = sent.data_content_type().is_none() && received.data_content_type().is_some();
    for attribute in ["id", "source", "type", "subject", "time", "dataschema", "datacontenttype"] {
        if attribute == "datacontenttype" && implied {
            continue;
        }
        assert_eq!(received.attribute(attribute), sent.attribute(attribute), "{attribute} of {name} on {topic}");
    }
    let extensions = |event: &Event| -> Vec<(String, String)> {
        event.extensions().map(|(name, value)| (name.to_string(), value.canonical().into_owned())).collect()
    };
    assert_eq!(extensions(received), extensions(sent), "extensions of {name} on {topic}");
}
