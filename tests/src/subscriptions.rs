//! Subscription files, and what the gateway tells about subscriptions.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use crate::PATIENCE;
use crate::client::Client;

/// A `Subscription` resource, in the fields that tests set.
#[derive(Clone, Debug)]
pub struct Subscription<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `spec.topics`.
    pub topics: &'a [&'a str],
    /// `spec.filters`: lines of YAML, one filter each.
    pub filters: &'a [&'a str],
    /// `spec.sink`.
    pub sink: &'a str,
    /// `spec.delivery`: lines of YAML, one field each.
    pub delivery: &'a [&'a str],
}

/// Retries quickly and gives up soon, so that a test of what follows does not wait.
pub const QUICK_RETRY: &str = "retry: {maxAttempts: 4, maxAge: 1h, initial: 10ms, max: 50ms}";
/// Retries quickly and practically for ever.
pub const PATIENT_RETRY: &str = "retry: {maxAttempts: 1000, maxAge: 1h, initial: 10ms, max: 50ms}";

impl Subscription<'_> {
    /// The resource as YAML, read from its start.
    pub fn yaml(&self) -> String {
        let mut text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Subscription\nmetadata: {{name: {}}}\nspec:\n  topics: [{}]\n  sink: {}\n",
            self.name,
            self.topics.join(", "),
            self.sink
        );
        if !self.filters.is_empty() {
            text.push_str("  filters:\n");
        }
        for filter in self.filters {
            let _ = writeln!(text, "    - {filter}");
        }
        text.push_str("  delivery:\n    from: earliest\n");
        for field in self.delivery {
            let _ = writeln!(text, "    {field}");
        }
        text
    }
}

/// How a subscription stands: `active`, `unreachable` and so on.
///
/// # Panics
///
/// Where the gateway does not tell.
pub async fn standing(client: &Client, name: &str) -> String {
    let shown = client.get(&format!("/subscriptions/{name}")).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    shown.expect(200).json()["status"]["standing"].as_str().unwrap_or_default().to_owned()
}

/// The dead letters of a subscription, as the gateway lists them.
///
/// # Panics
///
/// Where it does not list them.
pub async fn dead_letters(client: &Client, subscription: &str) -> Vec<Value> {
    let path = format!("/subscriptions/{subscription}/dead-letters");
    let answer = client.get(&path).await.unwrap_or_else(|error| panic!("{path}: {error}")).expect(200);
    let listed = answer.json();
    listed["deadLetters"].as_array().unwrap_or_else(|| panic!("dead letters are listed: {answer}")).clone()
}

/// Waits until a subscription has this many dead letters, and gives them.
///
/// # Panics
///
/// Where it does not come to that, or comes to more.
pub async fn wait_for_dead_letters(client: &Client, subscription: &str, count: usize) -> Vec<Value> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let letters = dead_letters(client, subscription).await;
        assert!(letters.len() <= count, "{} dead letters, not {count}: {letters:#?}", letters.len());
        if letters.len() == count {
            return letters;
        }
        assert!(tokio::time::Instant::now() < deadline, "{} dead letters, not {count}: {letters:#?}", letters.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The id of the event in a dead letter.
///
/// # Panics
///
/// Where the dead letter does not show its event.
pub fn dead_letter_id(letter: &Value) -> &str {
    letter["event"]["id"].as_str().unwrap_or_else(|| panic!("a dead letter shows its event: {letter:#}"))
}

/// Sends every dead letter of a subscription again.
///
/// # Panics
///
/// Where the gateway refuses.
pub async fn redrive_all(client: &Client, subscription: &str) {
    let path = format!("/subscriptions/{subscription}/dead-letters/redrive");
    let answer = client.post(&path, &[], "").await.unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(matches!(answer.status, 200 | 202 | 204), "{answer}");
}
