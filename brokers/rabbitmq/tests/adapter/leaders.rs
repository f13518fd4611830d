//! A stream gets another leader while it and others are written to: RabbitMQ sends it once more what is not confirmed.

use std::collections::HashSet;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tidegate_backbone::BoxFuture;

use crate::*;

/// Streams that are written to at once.
const STREAMS: u32 = 4;
/// Records for each of them, once one has another leader.
const AFTERWARDS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// Writes to all streams without waiting for confirmations, while the process that leads one is ended, so that it gets another
/// leader; gives how many were confirmed to each.
async fn written(
    server: &Broker,
    unseated: &str,
    append: &impl Fn(u32, u32) -> BoxFuture<'static, bool>,
) -> [u64; STREAMS as usize] {
    let mut confirmed = [0; STREAMS as usize];
    let (mut outcomes, mut ticks) = (FuturesUnordered::new(), tokio::time::interval(PAUSE));
    // The broker and all connections stay.
    let words = format!(
        r#"{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{unseated}">>)),
        true = exit(amqqueue:get_pid(Queue), kill)."#
    );
    let words = ["eval", &words];
    let unseating = server.control(&words);
    tokio::pin!(unseating);
    let (mut is_over, mut number, mut left) = (false, 0, AFTERWARDS);
    while left > 0 || !outcomes.is_empty() {
        tokio::select! {
            _ = &mut unseating, if !is_over => is_over = true,
            Some((stream, was_confirmed)) = outcomes.next(), if !outcomes.is_empty() => {
                confirmed[stream as usize] += u64::from(was_confirmed);
            }
            _ = ticks.tick(), if left > 0 => {
                for stream in 0..STREAMS {
                    let outcome = append(stream, number);
                    outcomes.push(async move { (stream, outcome.await) });
                }
                number += 1;
                left -= u32::from(is_over);
            }
        }
    }
    confirmed
}

fn partition(topic: &str, partition: u32) -> LogId {
    LogId::Topic { topic: topic.into(), partition }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_stays_where_a_stream_gets_another_leader() {
    let Some(server) = Broker::start("rabbitmq").await.filter(Broker::is_ours) else { return };
    let (broker, _environment) = open(server.url(), "leaders").await;
    broker.create(LogSpec::topic("orders", STREAMS)).await.expect("the topic can be created");
    let appended: Arc<Mutex<Vec<HashSet<String>>>> = Arc::new(Mutex::new(vec![HashSet::new(); STREAMS as usize]));
    let append = |stream: u32, number: u32| -> BoxFuture<'static, bool> {
        let id = number.to_string();
        let outcome = broker.append(&partition("orders", stream), Record::Event(event(&id)));
        let appended = Arc::clone(&appended);
        Box::pin(async move {
            let is_there = outcome.await.is_ok();
            if is_there {
                appended.lock()[stream as usize].insert(id);
            }
            is_there
        })
    };
    let confirmed = written(&server, "leaders.orders-1", &append).await;
    println!("confirmed to the adapter: {confirmed:?}");
    let appended = appended.lock().clone();
    for (stream, mut missing) in (0..STREAMS).zip(appended) {
        assert!(missing.len() >= AFTERWARDS as usize, "stream {stream} was written to: {}", missing.len());
        for stored in read(&broker, &partition("orders", stream), Position::ZERO).await {
            missing.remove(&**event_of(&stored).id());
        }
        assert!(
            missing.is_empty(),
            "{} records that were confirmed are not on stream {stream}: {missing:?}",
            missing.len()
        );
    }

    // The control: a client that writes to all of them over one channel is confirmed what RabbitMQ 3.x drops.
    let channel = Arc::new(somebody(server.url()).await);
    for stream in 0..STREAMS {
        declare(&channel, &format!("bare-{stream}"), "stream").await;
    }
    let append = |stream: u32, number: u32| -> BoxFuture<'static, bool> {
        let channel = Arc::clone(&channel);
        Box::pin(async move {
            let confirmed = async {
                let (name, body) = (format!("bare-{stream}"), number.to_string());
                let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
                channel.basic_publish("".into(), name.into(), options, body.as_bytes(), properties).await?.await
            };
            let confirmed = tokio::time::timeout(Duration::from_secs(5), confirmed).await;
            confirmed.is_ok_and(|confirmed| confirmed.is_ok_and(|told| told.is_ack()))
        })
    };
    broker.attach("bare", "bare").await.expect("the streams are there");
    let mut confirmed = 0;
    let until = tokio::time::Instant::now() + HANG;
    loop {
        let told = written(&server, "bare-1", &append).await;
        confirmed += told[1];
        let there = broker.info(&partition("bare", 1)).await.expect("the stream is there").end.0;
        println!("over one channel: {confirmed} confirmed, {there} on the stream");
        if there < confirmed {
            break;
        }
        // Nothing was on its way when the leader changed.
        assert!(tokio::time::Instant::now() < until, "nothing was dropped, so that it shows nothing");
    }
    broker.close().await;
}
