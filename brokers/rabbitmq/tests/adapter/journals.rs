//! Frames of slots: their positions are told, and only where that can be relied on.

use bytes::Bytes;
use tidegate_backbone::Appended;

use crate::*;

fn slot(epoch: u64) -> LogId {
    LogId::Slot { slot: 3, epoch, suffix: epoch }
}

fn frame(of: &str, number: usize) -> Bytes {
    Bytes::from(format!("{of} {number}"))
}

/// Appends frames as an owner does, who reads the journal back where no position is told, until one is; gives how often he did,
/// and the frame with its position.
async fn until_told(broker: &RabbitBroker, journal: &LogId, of: &str) -> (usize, Bytes, Position) {
    let deadline = tokio::time::Instant::now() + HANG;
    for number in 0.. {
        assert!(tokio::time::Instant::now() < deadline, "no position is told");
        let frame = frame(of, number);
        match broker.append(journal, Record::Frame(frame.clone())).await {
            Ok(Appended { position: Some(position) }) => return (number, frame, position),
            Ok(Appended { position: None }) => drop(read(broker, journal, Position::ZERO).await),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    unreachable!("numbers do not end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_told_their_positions_once_the_journal_was_read_back() {
    let Some(server) = shared().await else { return };
    let ((broker, _one), (other, _two)) = (open(server.url(), "told").await, open(server.url(), "told").await);
    let journal = slot(0);
    broker.create(LogSpec::Single(journal.clone())).await.unwrap();

    let (read_back, written, position) = until_told(&broker, &journal, "first").await;
    assert!(read_back > 0, "nothing was read along yet");
    let there = read(&other, &journal, position).await;
    assert_eq!((there[0].position, &there[0].record), (position, &Record::Frame(written)), "it stands there");
    // Frames of others between two of its own take places, so that who is told positions sees that something stands between.
    for number in 0..3 {
        other.append(&journal, Record::Frame(frame("others'", number))).await.unwrap();
    }
    let (read_back, _, behind) = until_told(&broker, &journal, "second").await;
    assert_eq!((read_back, behind), (0, Position(position.0 + 4)));
    // Many at once are told theirs each.
    let appends: Vec<_> = (0..50).map(|n| broker.append(&journal, Record::Frame(frame("many", n)))).collect();
    let mut told = Vec::new();
    for append in appends {
        told.push(append.await.unwrap().position.map(|position| position.0));
    }
    assert_eq!(told, (1..=50).map(|n| Some(behind.0 + n)).collect::<Vec<_>>());

    // Over another connection, nothing is told before the journal was read back again.
    broker.cut();
    let deadline = tokio::time::Instant::now() + HANG;
    while !matches!(broker.append(&journal, Record::Frame(frame("cut", 0))).await, Ok(Appended { position: None })) {
        assert!(tokio::time::Instant::now() < deadline, "positions are told as if nothing had been cut");
    }
    assert!(until_told(&broker, &journal, "afterwards").await.0 > 0);

    // The control: what nobody relies on is told nowhere.
    let orders = topic(&broker, "orders").await;
    for number in 0..3 {
        let appended = broker.append(&orders, Record::Event(event(&number.to_string()))).await.unwrap();
        assert_eq!(appended.position, None);
        drop(read(&broker, &orders, Position::ZERO).await);
    }
    broker.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_generations_of_a_slot_are_those_that_are_there() {
    let Some(server) = shared().await else { return };
    let ((broker, _one), (other, _two)) =
        (open(server.url(), "generations").await, open(server.url(), "generations").await);
    for epoch in [0, 4, 7] {
        broker.create(LogSpec::Single(slot(epoch))).await.unwrap();
    }
    broker.create(LogSpec::Single(LogId::Slot { slot: 4, epoch: 0, suffix: 0 })).await.unwrap();
    broker.create(LogSpec::Single(LogId::Outcomes { slot: 3 })).await.unwrap();
    topic(&broker, "orders").await;
    assert_eq!(other.generations(3).await.unwrap(), [slot(0), slot(4), slot(7)]);
    broker.delete(LogSpec::Single(slot(4))).await.unwrap();
    // As where a gateway dies between writing down that a log is deleted, and deleting it, the other way round.
    let channel = somebody(server.url()).await;
    let stream = "ns.generations~slot~3~7~0000000000000007";
    channel.queue_delete(stream.into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    assert_eq!(other.generations(3).await.unwrap(), [slot(0)]);
    assert_eq!(other.generations(5).await.unwrap(), []);
    broker.close().await;
    other.close().await;
}
