//! Whatever comes in, the gateway says clearly what is wrong, loses nothing that it took, and goes on serving.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

mod connections;
mod disk;
mod requests;
mod resources;

use tidegate_tests::checker::{self, Recorded};
use tidegate_tests::client::{Client, Outgoing};

/// Checks that the gateway still takes a good event, and that the topic holds it and nothing that was refused.
async fn check_that_it_serves(client: &Client, topic: &str, already_there: usize) -> Vec<Recorded> {
    let event = Outgoing { id: "good", ..Outgoing::default() };
    client.publish(topic, &event).await.expect("the gateway answers").expect(202);
    client.get("/livez").await.expect("the gateway answers").expect(200);
    client.get("/readyz").await.expect("the gateway answers").expect(200);
    let events = checker::read_topic(client, topic).await;
    assert_eq!(events.len(), already_there + 1, "something refused was stored: {events:?}");
    assert_eq!(events.last().map(|event| event.id.as_str()), Some("good"));
    events
}
