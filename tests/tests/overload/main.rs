//! Clients that mean harm: whatever they do, a good client is served as if they were not there, they are let go in time,
//! and memory stays within its bounds.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

mod frames;
mod memory;
mod slow;
mod smuggling;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_tests::PATIENCE;
use tidegate_tests::client::{Client, Outgoing};
use tidegate_tests::gateway::{Gateway, Options};
use tidegate_tests::home::Home;
use tokio::task::JoinHandle;

/// A gateway with these limits.
async fn start(home: &Home, limits: &str) -> Gateway {
    let options = Options { limits: Some(limits.to_owned()), ..Options::default() };
    home.start_with(options).await.unwrap_or_else(|refused| panic!("{refused}"))
}

/// A client that publishes one event after the other and expects a receipt for each.
struct Good {
    stop: Arc<AtomicBool>,
    publishing: JoinHandle<usize>,
}

impl Good {
    fn begin(gateway: &Gateway) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, stopped) = (Client::new(gateway.http()), Arc::clone(&stop));
        let publishing = tokio::spawn(async move {
            let mut published = 0;
            // Some attacks are over before it has really begun.
            while !stopped.load(Ordering::Relaxed) || published < 20 {
                let id = published.to_string();
                let event = Outgoing { id: &id, ..Outgoing::default() };
                client.publish("good", &event).await.expect("the gateway answers a good client").expect(202);
                published += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            published
        });
        Self { stop, publishing }
    }

    /// Ends, and checks that every event of it got its receipt and is there.
    async fn end(self, gateway: &Gateway) {
        self.stop.store(true, Ordering::Relaxed);
        let published = self.publishing.await.expect("a good client is served");
        let read = tidegate_tests::checker::read_topic(gateway.client(), "good").await;
        assert_eq!(read.len(), published);
    }
}

/// A figure of `/metrics`, summed over all its labels.
async fn figure(gateway: &Gateway, name: &str) -> f64 {
    let text = gateway.client().get("/metrics").await.expect("the gateway answers").expect(200).body;
    let text = String::from_utf8_lossy(&text).into_owned();
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    values.sum()
}

/// Waits until a figure has come to a value; gives whether it did within that time.
async fn comes_to(gateway: &Gateway, name: &str, patience: Duration, enough: impl Fn(f64) -> bool) -> bool {
    let until = async {
        while !enough(figure(gateway, name).await) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(patience.min(PATIENCE), until).await.is_ok()
}

/// A line of `/proc/PID/status` that counts kilobytes, in mebibytes.
fn memory_mebibytes(gateway: &Gateway, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process_id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("the kernel tells it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}
