//! A broker that is killed, loses the end of a stream, and stands still.

use std::path::{Path, PathBuf};

use tidegate_backbone::{Applied, ErrorKind, Tail};
use tidegate_conformance::Act;

use crate::*;

/// The segments of a stream, below the broker's data, in whose names a dot is an underscore.
fn segments(folder: &Path, stream: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the data can be read") {
            let path = entry.expect("the data can be read").path();
            let of_stream = path.to_string_lossy().contains(stream);
            if path.is_dir() {
                folders.push(path);
            } else if of_stream && path.extension().is_some_and(|extension| extension == "segment") {
                found.push(path);
            }
        }
    }
    found
}

async fn next(tail: &mut dyn Tail) -> tidegate_backbone::Result<Vec<String>> {
    let batch = tokio::time::timeout(HANG, tail.next(1 << 20)).await.expect("the tail does not hang")?;
    Ok(batch.records.iter().map(|stored| event_of(stored).id().to_string()).collect())
}

async fn numbered(broker: &RabbitBroker, log: &LogId, numbers: std::ops::Range<usize>) {
    let all = async {
        for number in numbers {
            appended(broker, log, &number.to_string()).await;
        }
    };
    tokio::time::timeout(HANG, all).await.expect("all are confirmed");
}

/// Kills the broker, does something to the data of the stream, and starts it again.
async fn read_over_a_kill(name: &str, meanwhile: impl FnOnce(&Path)) -> tidegate_backbone::Result<Vec<String>> {
    let server = Broker::start("rabbitmq").await.expect("it was had a moment ago");
    let (broker, _environment) = open(server.url(), name).await;
    let orders = topic(&broker, "orders").await;
    numbered(&broker, &orders, 0..100).await;
    let mut tail = broker.tail(&orders, Position::ZERO).await.unwrap();
    let mut seen = 0;
    while seen < 100 {
        seen += next(tail.as_mut()).await.unwrap().len();
    }
    server.act(Act::Kill, None).await;
    let files = segments(&server.folder().expect("the broker is ours"), &format!("{name}_orders-0"));
    assert_eq!(files.len(), 1, "{files:?}");
    meanwhile(&files[0]);
    server.act(Act::Restart, None).await;
    numbered(&broker, &orders, 100..101).await;
    let got = next(tail.as_mut()).await;
    broker.close().await;
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_stream_that_was_lost_is_told() {
    if shared().await.is_none_or(|server| !server.is_ours()) {
        return;
    }
    let cut_off = |segment: &Path| {
        let file = std::fs::OpenOptions::new().write(true).open(segment).expect("the segment can be written to");
        let bytes = file.metadata().expect("it has a length").len();
        file.set_len(bytes / 2).expect("it can be cut off");
    };
    let error = read_over_a_kill("cut-off", cut_off).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::DataLoss, "{error}");
    // The control: a broker that is killed and loses nothing.
    let mut got = read_over_a_kill("whole", |_| {}).await.unwrap();
    // One whose outcome was unknown was sent again.
    got.dedup();
    assert_eq!(got, ["100"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_that_stands_still_does_not_confirm_is_unknown() {
    let Some(server) = Broker::start("rabbitmq").await.filter(Broker::is_ours) else { return };
    let (broker, _environment) = open(server.url(), "still").await;
    let orders = topic(&broker, "orders").await;
    numbered(&broker, &orders, 0..1).await;
    server.act(Act::Pause, None).await;
    let appended = tokio::time::timeout(HANG, broker.append(&orders, Record::Event(event("lost?")))).await;
    let error = appended.expect("it is told before long").unwrap_err();
    assert_eq!(error.applied(), Applied::Unknown, "{error}");
    let deadline = tokio::time::Instant::now() + HANG;
    while broker.unreachable().is_none() {
        assert!(tokio::time::Instant::now() < deadline, "silence is noticed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.act(Act::Resume, None).await;
    let deadline = tokio::time::Instant::now() + HANG;
    numbered(&broker, &orders, 1..2).await;
    // Each connection notices by itself, and one may do so only now.
    while broker.unreachable().is_some() || broker.info(&orders).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", broker.unreachable());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let read = read(&broker, &orders, Position::ZERO).await;
    let ids: Vec<&str> = read.iter().map(|stored| &**event_of(stored).id()).filter(|id| *id != "lost?").collect();
    assert_eq!(ids, ["0", "1"]);
    broker.close().await;
}
