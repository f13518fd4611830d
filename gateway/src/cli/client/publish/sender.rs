//! Sends the events of a file in batches, one batch at a time, so that their order is kept.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Method, StatusCode};
use serde::Deserialize;
use tidegate_schemas::json::{BATCH_MEDIA_TYPE, EVENT_MEDIA_TYPE};
use tidegate_schemas::limits;

use super::super::api::{Answer, Call};
use super::super::failure::Failure;
use super::super::problem::Problem;
use super::super::{Context, json, text};
use super::event::Item;

/// What the API says of an event that is stored.
#[derive(Debug, Deserialize)]
struct Receipt {
    id: String,
    topic: String,
    partition: u32,
    offset: Option<u64>,
    durability: String,
}

/// Collects events and sends them.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    topic: &'a str,
    /// The name of the file, for messages.
    source: String,
    pending: Vec<Item>,
    pending_bytes: usize,
    /// Events with a receipt.
    pub(super) published: u64,
}

impl<'a> Sender<'a> {
    /// Sends events of a source to a topic.
    pub(super) fn new(topic: &'a str, source: String) -> Self {
        Self { topic, source, pending: Vec::new(), pending_bytes: 0, published: 0 }
    }

    /// Whether events wait to be sent.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The name of the source.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Where a line stands, for messages.
    pub(super) fn place(&self, line: u64) -> String {
        format!("{}:{line}", self.source)
    }

    /// Takes an event, and sends those that wait where the batch is full.
    pub(super) async fn push(&mut self, context: &mut Context<'_>, item: Item) -> Result<(), Failure> {
        if self.pending_bytes + item.json.len() > limits::CLIENT_BATCH_BYTES {
            self.flush(context).await?;
        }
        self.pending_bytes += item.json.len() + 1;
        self.pending.push(item);
        if self.pending.len() >= limits::CLIENT_BATCH_EVENTS { self.flush(context).await } else { Ok(()) }
    }

    /// Sends what waits. A batch that is refused for what an event is, is sent again event by event: so all before the
    /// refused event are published, and the message names its line.
    pub(super) async fn flush(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.pending_bytes = 0;
        let items = std::mem::take(&mut self.pending);
        if items.is_empty() {
            return Ok(());
        }
        match self.send(context, &items).await {
            Err(Failure::Refused(problem)) if items.len() > 1 && is_about_an_event(&problem) => {
                for item in items.chunks(1) {
                    if let Err(failure) = self.send(context, item).await {
                        return Err(failure.at(self.range(item)));
                    }
                }
                Ok(())
            }
            Err(Failure::Refused(problem)) if problem.receipts.is_some() => {
                self.tell_partial(context, &items, *problem)
            }
            outcome => outcome.map_err(|failure| failure.at(self.range(&items))),
        }
    }

    /// Sends events in one request and prints their receipts; waits and tries again while the gateway is busy.
    async fn send(&mut self, context: &mut Context<'_>, items: &[Item]) -> Result<(), Failure> {
        let (media_type, body) = body(items);
        let mut retries = 0;
        let answer = loop {
            let call = Call::new(Method::POST, &["topics", self.topic]).body(media_type, body.clone());
            match context.api.call(call).await {
                Err(Failure::Refused(problem)) if retries < limits::CLIENT_RETRIES && is_busy(&problem) => {
                    retries += 1;
                    let wait = problem.retry_after.unwrap_or(limits::CLIENT_RETRY_DELAY);
                    let wait = wait.min(limits::CLIENT_RETRY_AFTER_MAX);
                    context.console.hint(&format!("the gateway is busy; trying again in {}", seconds(wait)));
                    tokio::time::sleep(wait).await;
                }
                outcome => break outcome?,
            }
        };
        let receipts = receipts(&answer)?;
        if receipts.len() != items.len() {
            let (got, sent) = (receipts.len(), items.len());
            return Err(Failure::Unknown(format!("the gateway gave {got} receipts for {sent} events")));
        }
        for receipt in receipts {
            self.published += 1;
            print(context, receipt)?;
        }
        Ok(())
    }

    /// Some events of a batch are stored and others not, or not known to be.
    fn tell_partial(&mut self, context: &mut Context<'_>, items: &[Item], mut problem: Problem) -> Result<(), Failure> {
        let fate = if problem.is_outcome_unknown() { "outcome unknown" } else { "not stored" };
        let receipts = problem.receipts.take().unwrap_or_default();
        let mut missing = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match receipts.get(index) {
                Some(Some(receipt)) => {
                    self.published += 1;
                    print(context, receipt.get())?;
                }
                Some(None) | None => missing.push(item),
            }
        }
        for item in &missing {
            context.console.note(&format!("{}: {fate}: {}", self.place(item.line), text::printable(&item.id)));
        }
        let first = missing.first().map_or(items[0].line, |item| item.line);
        Err(Failure::Refused(Box::new(problem)).at(self.place(first)))
    }

    fn range(&self, items: &[Item]) -> String {
        match items {
            [] => self.source.clone(),
            [one] => self.place(one.line),
            [first, .., last] => format!("{}:{}-{}", self.source, first.line, last.line),
        }
    }
}

/// The receipts in an answer, each as it was written.
pub(super) fn receipts(answer: &Answer) -> Result<Vec<&str>, Failure> {
    match json::elements(&answer.body) {
        Some(receipts) => Ok(receipts.into_iter().map(|receipt| receipt.get()).collect()),
        None if json::members(&answer.body).is_some() => Ok(vec![&answer.body]),
        None => {
            let status = answer.status;
            Err(Failure::Unknown(format!(
                "the answer {status} carries no receipt; is it a gateway that listens there?"
            )))
        }
    }
}

/// Prints a receipt.
pub(super) fn print(context: &mut Context<'_>, receipt: &str) -> Result<(), Failure> {
    let line = if context.wants_json() {
        json::one_line(receipt).into_owned()
    } else {
        let Receipt { id, topic, partition, offset, durability } = json::read(receipt)?;
        let offset = offset.map(|offset| format!("  offset {offset}")).unwrap_or_default();
        text::printable(&format!("{id}  {topic}  partition {partition}{offset}  {durability}")).into_owned()
    };
    context.console.line(&line)
}

/// One event goes alone, several as a batch.
fn body(items: &[Item]) -> (&'static str, Bytes) {
    if let [item] = items {
        return (EVENT_MEDIA_TYPE, item.json.clone());
    }
    let bytes: usize = items.iter().map(|item| item.json.len() + 1).sum();
    let mut body = BytesMut::with_capacity(bytes + 1);
    for (index, item) in items.iter().enumerate() {
        body.put_u8(if index == 0 { b'[' } else { b',' });
        body.put_slice(&item.json);
    }
    body.put_u8(b']');
    (BATCH_MEDIA_TYPE, body.freeze())
}

fn is_about_an_event(problem: &Problem) -> bool {
    let status = problem.status;
    let about = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
    problem.receipts.is_none() && about.contains(&status)
}

/// Nothing of the request was stored, and the gateway asks for patience.
fn is_busy(problem: &Problem) -> bool {
    let asks = problem.status == StatusCode::SERVICE_UNAVAILABLE && problem.retry_after.is_some();
    problem.receipts.is_none() && (asks || problem.status == StatusCode::TOO_MANY_REQUESTS)
}

fn seconds(wait: Duration) -> String {
    format!("{} s", wait.as_secs())
}
