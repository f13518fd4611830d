//! Acknowledged means durable, seen from the kernel: for every publish the record is written, then the file is synced
//! and the sync has returned 0, and only then does the answer leave.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tidegate_tests::PATIENCE;
use tidegate_tests::client::Outgoing;
use tidegate_tests::gateway::{Gateway, Options};
use tidegate_tests::home::Home;
use tidegate_tests::machine::{has_program, not_had};
use tidegate_tests::trace;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

const EVENTS: usize = 50;
const CALLS: &str = "trace=pwrite64,pwritev,pwritev2,write,writev,fdatasync,fsync,sendto,sendmsg";

/// Attaches to every thread of the gateway. None where this machine does not let it.
async fn attach(gateway: &Gateway, output: &Path) -> Option<Child> {
    if !has_program("strace") {
        not_had("the order of write, sync and answer", "strace is not installed");
        return None;
    }
    let mut strace = Command::new("strace");
    strace.args(["-f", "-yy", "-s", "8192", "-e", CALLS, "-o"]).arg(output);
    strace.args(["-p", &gateway.process_id().to_string()]);
    let strace = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let mut strace = strace.expect("strace can be started");
    let mut said = BufReader::new(strace.stderr.take().expect("its stderr is piped"));
    let mut line = String::new();
    let reading = tokio::time::timeout(PATIENCE, said.read_line(&mut line)).await;
    assert!(reading.is_ok(), "strace says nothing");
    if !line.contains("attached") {
        not_had("the order of write, sync and answer", &format!("strace may not attach: {}", line.trim()));
        return None;
    }
    // The pipe is read to its end, so that strace never waits for it.
    tokio::spawn(async move {
        let mut rest = Vec::new();
        let _ = said.read_to_end(&mut rest).await;
    });
    Some(strace)
}

/// Waits until the trace holds the answer to the last event, for strace writes in its own time.
async fn read_trace(output: &Path, last: &str) -> Vec<trace::Call> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let calls = trace::parse(&String::from_utf8_lossy(&std::fs::read(output).unwrap_or_default()));
        let answered = calls.iter().any(|call| call.target.starts_with("TCP") && call.arguments.contains(last));
        if answered || tokio::time::Instant::now() > deadline {
            return calls;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Publishes one event after the other and gives what the trace says of each; none where nothing can be traced here.
async fn faults(options: Options) -> Option<Vec<(String, trace::Fault)>> {
    let home = Home::new();
    let gateway = home.start_with(options).await.unwrap_or_else(|refused| panic!("{refused}"));
    let output = home.path().join("trace");
    let mut strace = attach(&gateway, &output).await?;

    let ids: Vec<String> = (0..EVENTS).map(|n| format!("order-of-durability-{n:04}")).collect();
    for id in &ids {
        let event = Outgoing { id, ..Outgoing::default() };
        gateway.client().publish("durable", &event).await.expect("the gateway answers").expect(202);
    }
    let calls = read_trace(&output, &ids[EVENTS - 1]).await;
    strace.kill().await.expect("the child is ours");
    let data = home.data().canonicalize().expect("the gateway made its folder");
    let data = data.to_str().expect("a temporary folder's name is text");
    let faults: Vec<_> = ids
        .into_iter()
        .filter_map(|id| trace::durable_before_answer(&calls, data, &id).err().map(|fault| (id, fault)))
        .collect();
    println!("{EVENTS} answers traced in {} calls, {} not proven durable", calls.len(), faults.len());
    Some(faults)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_synced_before_its_answer_leaves() {
    if let Some(faults) = faults(Options::default()).await {
        assert!(faults.is_empty(), "{faults:?}");
    }
}

/// The control: a gateway that acknowledges before it writes must be seen to do so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_write_is_seen() {
    if std::env::var_os("TIDEGATE_FAULT_BINARY").is_none() {
        not_had("the control of the traced order", "TIDEGATE_FAULT_BINARY names no gateway with `fault-injection`");
        return;
    }
    let options = Options { fault: Some("acknowledge-before-write"), ..Options::default() };
    if let Some(faults) = faults(options).await {
        let unanswered = faults.iter().filter(|(_, fault)| *fault == trace::Fault::NoAnswer).count();
        assert_eq!(unanswered, 0, "the trace misses answers: {faults:?}");
        assert!(!faults.is_empty(), "the faulty gateway looks right, so the trace proves nothing");
    }
}
