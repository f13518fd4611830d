//! What passports cost: memory of the index, and the time of a question, with many events and outcomes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::figures::{Figures, print_table};
use crate::process::{Kind, Server, load_average, memory_bytes};
use crate::sink::{self, Arrivals};
use crate::{Common, Failure, http};

const BATCH: usize = 500;
const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// What delivering everything may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Publishes and delivers events, then asks after some, before and after a kill.
pub(crate) fn run(common: &Common, events: usize, questions: usize) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let arrivals = Arrivals::new(events);
    let address = runtime.block_on(sink::start(Arc::clone(&arrivals)))?;
    let home = tempfile::tempdir_in(&common.folder)?;
    let resources = home.path().join("resources");
    std::fs::create_dir(&resources)?;
    std::fs::write(
        resources.join("sink.yaml"),
        format!(
            "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {{name: bench}}\nspec:\n  topics: [bench]\n  \
             sink: http://{address}/hook\n  delivery: {{from: earliest, order: none, maxInFlight: 256}}\n"
        ),
    )?;
    let arguments = ["--resources", resources.to_str().ok_or("the folder's name is not UTF-8")?];
    let server = Server::start(common, Kind::Gateway, home.path(), &arguments)?;
    println!("{events} events, each delivered once; load average {} before.\n", load_average());
    let began = Instant::now();
    for first in (0..events).step_by(BATCH) {
        let ids = first..(first + BATCH).min(events);
        let batch: Vec<String> = ids
            .map(|id| {
                format!(r#"{{"specversion":"1.0","id":"{id:016x}","source":"/bench","type":"t","data":{{"n":{id}}}}}"#)
            })
            .collect();
        let body = format!("[{}]", batch.join(","));
        let request = format!(
            "POST /topics/bench HTTP/1.1\r\nhost: {}\r\ncontent-type: application/cloudevents-batch+json\r\n\
             content-length: {}\r\n\r\n{body}",
            server.http,
            body.len()
        );
        http::once(server.http, request.as_bytes())?;
    }
    while arrivals.missing() > 0 {
        if began.elapsed() > PATIENCE {
            return Err(format!("{} events were not delivered", arrivals.missing()).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("Published and delivered in {:.1} s.\n", began.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(3));
    let memory = |server: &Server| -> Result<f64, Failure> {
        Ok(memory_bytes(server.process_id(), "RssAnon")? as f64 / MEBIBYTE)
    };
    let mut rows = vec![ask("running", &server, events, questions, memory(&server)?)?];
    // Dropped, it is killed: what was in memory is read again.
    drop(server);
    let server = Server::start(common, Kind::Gateway, home.path(), &arguments)?;
    let ready = server.ready_after;
    let before = memory(&server)?;
    let began = Instant::now();
    http::get(server.http, &format!("/passports?id={:016x}&source=/bench", events / 2))?;
    let first = began.elapsed();
    rows.push(ask("after a kill", &server, events, questions, before)?);
    let heads =
        ["", "known id p50 ms", "p99 ms", "unknown id p50 ms", "p99 ms", "anonymous memory MiB", "after asking"];
    print_table(&heads, &rows);
    println!(
        "After the kill: ready in {:.1} ms, the first answer (the index is read before it) in {:.1} ms.\n",
        ready.as_secs_f64() * 1e3,
        first.as_secs_f64() * 1e3
    );
    server.terminate()?;
    Ok(())
}

fn ask(name: &str, server: &Server, events: usize, questions: usize, memory: f64) -> Result<Vec<String>, Failure> {
    let (mut known, mut unknown) = (Figures::default(), Figures::default());
    for question in 0..questions {
        let id = question * 7_919 % events;
        let began = Instant::now();
        let found = http::get(server.http, &format!("/passports?id={id:016x}&source=/bench"))?;
        known.push(began.elapsed().as_secs_f64() * 1e3);
        if found[0]["places"][0]["subscriptions"][0]["attempts"][0]["status"] != 204 {
            return Err(format!("event {id} has no delivery: {found}").into());
        }
        let began = Instant::now();
        if http::get(server.http, &format!("/passports?id=none-{id}")).is_ok() {
            return Err("an event is told that was never published".into());
        }
        unknown.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let after = memory_bytes(server.process_id(), "RssAnon")? as f64 / MEBIBYTE;
    let of = |figures: &Figures, part| format!("{:.2}", figures.quantile(part));
    Ok(vec![
        name.to_owned(),
        of(&known, 0.5),
        of(&known, 0.99),
        of(&unknown, 0.5),
        of(&unknown, 0.99),
        format!("{memory:.1}"),
        format!("{after:.1}"),
    ])
}
