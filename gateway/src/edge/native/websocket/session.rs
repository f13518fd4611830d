use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt as _;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use serde::Serialize;
use serde_json::value::RawValue;
use tidegate_backbone::budget::Account;
use tidegate_backbone::catalogue::Topic;
use tidegate_backbone::publish::Receipt;
use tidegate_backbone::{Cursor, Error};
use tidegate_schemas::websocket::{self as binding, Frame, Refusal};
use tidegate_schemas::{Event, Format, limits};
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tracing::debug;

use super::super::{Shared, publish};
use super::close::Ending;
use super::handshake::Socket;
use crate::blocks::pubsub::Reading;
use crate::edge::listener::no_memory;
use crate::edge::problem::Problem;
use crate::telemetry::metrics::Follower;

/// One WebSocket, from the handshake to its end. Nothing waits here but what its limits name: so many events that are
/// being stored, and one message that is being sent.
pub(super) struct Session {
    api: Shared,
    topic: Arc<Topic>,
    format: Format,
    acknowledges: bool,
    reading: Option<Reading>,
    /// Counted as long as the topic is followed.
    _follower: Option<Follower>,
    stores: FuturesOrdered<Pin<Box<dyn Future<Output = Stored> + Send>>>,
    storing_bytes: usize,
    /// Messages that came.
    messages: u64,
}

/// What became of the event of one message.
struct Stored {
    message: u64,
    bytes: usize,
    began: Instant,
    outcome: Result<Receipt, Problem>,
}

/// What a message is answered with, where acknowledgements are asked for. An event has a `specversion`, and this has not.
#[derive(Serialize)]
struct Envelope<'a> {
    ack: Acknowledgement<'a>,
}

#[derive(Serialize)]
struct Acknowledgement<'a> {
    /// Which message of this connection is meant, from 1: one that is no event has no id to name it by.
    message: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<publish::Document<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a RawValue>,
}

impl Session {
    pub(super) fn new(
        api: &Shared,
        topic: Arc<Topic>,
        format: Format,
        acknowledges: bool,
        reading: Option<Reading>,
    ) -> Self {
        let follower = reading.is_some().then(|| api.metrics.follower("websocket"));
        let (api, stores) = (Arc::clone(api), FuturesOrdered::new());
        let (storing_bytes, messages) = (0, 0);
        Self { api, topic, format, acknowledges, reading, _follower: follower, stores, storing_bytes, messages }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(mut self, mut socket: Socket) {
        let ending = match self.exchange(&mut socket).await {
            Ok(never) => match never {},
            Err(ending) => ending,
        };
        match ending {
            // A client that says farewell is answered; one that is gone cannot be.
            Ending::Left => drop(tokio::time::timeout(limits::WEBSOCKET_CLOSE_TIMEOUT, socket.flush()).await),
            Ending::Unresponsive(reason) => {
                self.api.metrics.connection_refused(reason);
                debug!(reason, "a websocket is closed");
            }
            Ending::Told(frame) => {
                debug!(code = %frame.code, reason = %frame.reason, "a websocket is closed");
                let _ = tokio::time::timeout(limits::WEBSOCKET_CLOSE_TIMEOUT, farewell(&mut socket, frame)).await;
            }
        }
    }

    /// Takes and sends messages until there is a reason to end.
    async fn exchange(&mut self, socket: &mut Socket) -> Result<std::convert::Infallible, Ending> {
        let stopping = self.api.environment.stopping().clone();
        let mut silence = pin!(tokio::time::sleep(limits::WEBSOCKET_PING_INTERVAL));
        let (mut asked, mut draining) = (false, false);
        loop {
            if draining && self.stores.is_empty() {
                return Err(Ending::stopping());
            }
            let has_room = self.stores.len() < limits::WEBSOCKET_PUBLISHES
                && self.storing_bytes < limits::WEBSOCKET_PUBLISHES_BYTES;
            tokio::select! {
                // What was taken is stored and answered; nothing else is begun.
                () = stopping.cancelled(), if !draining => draining = true,
                Some(stored) = self.stores.next(), if !self.stores.is_empty() => self.answer(socket, stored).await?,
                message = socket.next(), if has_room && !draining => {
                    let message = message.ok_or(Ending::Left)?.map_err(Ending::of_error)?;
                    asked = false;
                    silence.as_mut().reset(Instant::now() + limits::WEBSOCKET_PING_INTERVAL);
                    self.take(message)?;
                }
                next = following(&mut self.reading), if !draining => {
                    let event = next?;
                    send(socket, self.message(&event)).await?;
                }
                () = silence.as_mut(), if !draining => {
                    // A client whose messages are not read for want of room is not silent.
                    if asked && has_room {
                        return Err(Ending::Unresponsive("silent"));
                    }
                    asked = true;
                    send(socket, Message::Ping(Bytes::new())).await?;
                    silence.as_mut().reset(Instant::now() + limits::WEBSOCKET_PING_TIMEOUT);
                }
            }
        }
    }

    /// Begins to store the event of a message.
    fn take(&mut self, message: Message) -> Result<(), Ending> {
        let kind = match message {
            Message::Text(_) => Frame::Text,
            Message::Binary(_) => Frame::Binary,
            // They are answered below this; coming is all that they have to do.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
            Message::Close(_) => return Err(Ending::Left),
        };
        self.messages += 1;
        let (number, began) = (self.messages, Instant::now());
        let message = message.into_data();
        let held = self.api.environment.memory.try_take(Account::Bodies, message.len());
        let read = match held {
            Ok(permit) => binding::read(self.format, kind, permit.hold(message), &self.api.limits),
            Err(exhausted) => return self.answer_later(number, began, no_memory(&exhausted)),
        };
        let event = match read {
            Ok(event) => event,
            // The client speaks another subprotocol than the one that was agreed on.
            Err(refusal @ Refusal::Frame(_)) => return Err(Ending::of_refusal(&refusal)),
            Err(Refusal::Event(error)) => return self.answer_later(number, began, publish::problem(&error)),
        };
        let bytes = event.bytes();
        let outcome = publish::store(&self.api, &self.topic, event);
        self.storing_bytes += bytes;
        let stored = async move { Stored { message: number, bytes, began, outcome: outcome.await } };
        self.stores.push_back(Box::pin(stored));
        Ok(())
    }

    /// What is refused is told in its turn, behind the answers to what came before.
    fn answer_later(&mut self, message: u64, began: Instant, problem: Problem) -> Result<(), Ending> {
        let stored = Stored { message, bytes: 0, began, outcome: Err(problem) };
        self.stores.push_back(Box::pin(std::future::ready(stored)));
        Ok(())
    }

    async fn answer(&mut self, socket: &mut Socket, stored: Stored) -> Result<(), Ending> {
        let Stored { message, bytes, began, outcome } = stored;
        self.storing_bytes -= bytes;
        publish::count(&self.api, &outcome, began);
        if !self.acknowledges {
            return outcome.map(|_| ()).map_err(|problem| Ending::of_problem(&problem));
        }
        send(socket, Message::Text(acknowledgement(message, &outcome).into())).await
    }

    /// An event as a message.
    fn message(&self, event: &Event) -> Message {
        let bytes = self.format.write(event);
        match binding::frame(self.format) {
            Frame::Text => Message::Text(Utf8Bytes::try_from(bytes).expect("JSON is written in UTF-8")),
            Frame::Binary => Message::Binary(bytes),
        }
    }
}

/// What a message is answered with.
fn acknowledgement(message: u64, outcome: &Result<Receipt, Problem>) -> String {
    let problem = outcome.as_ref().err().map(|problem| {
        let text = String::from_utf8(problem.document()).expect("JSON is written in UTF-8");
        RawValue::from_string(text).expect("a document is JSON")
    });
    let receipt = outcome.as_ref().ok().map(publish::Document::from);
    let ack = Acknowledgement { message, receipt, problem: problem.as_deref() };
    serde_json::to_string(&Envelope { ack }).expect("texts and numbers can always be written")
}

/// The next event of the topic; never, where it is not followed.
async fn following(reading: &mut Option<Reading>) -> Result<Event, Ending> {
    let Some(reading) = reading else { return std::future::pending().await };
    let next: Option<Result<(Event, Cursor), Error>> = reading.next().await;
    match next {
        Some(Ok((event, _))) => Ok(event),
        Some(Err(error)) => Err(Ending::of_problem(&Problem::from(error))),
        // Only after an error, which has ended the connection.
        None => Err(Ending::stopping()),
    }
}

/// Tells the client why the connection ends, and waits until it has heard. What it sent before that is thrown away: to close
/// while bytes wait makes the kernel reset the connection, which can destroy the farewell on its way.
async fn farewell(socket: &mut Socket, frame: CloseFrame) {
    if socket.send(Message::Close(Some(frame))).await.is_err() {
        return;
    }
    while let Some(next) = socket.next().await {
        if next.is_err() {
            // In the middle of a message that is not taken, the frames behind it cannot be told apart.
            let mut rest = socket.get_mut().take(limits::WEBSOCKET_MESSAGE_BYTES as u64 * 2);
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
            return;
        }
    }
}

/// Sends one message; a client that does not take it is given up, for nothing is kept for it.
async fn send(socket: &mut Socket, message: Message) -> Result<(), Ending> {
    match tokio::time::timeout(limits::WEBSOCKET_WRITE_TIMEOUT, socket.send(message)).await {
        Ok(sent) => sent.map_err(Ending::of_error),
        Err(_) => Err(Ending::Unresponsive("unread")),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_backbone::Position;
    use tidegate_backbone::capability::Durability;

    use super::*;
    use crate::edge::problem::Code;

    #[test]
    fn acknowledgements_are_no_events() {
        let receipt = Receipt {
            id: "1".into(),
            source: "/s".into(),
            topic: "t".into(),
            partition: 2,
            position: Some(Position(7)),
            durability: Durability::Fsync,
        };
        assert_eq!(
            acknowledgement(3, &Ok(receipt)),
            r#"{"ack":{"message":3,"receipt":{"id":"1","source":"/s","topic":"t","partition":2,"offset":7,"durability":"fsync"}}}"#
        );
        let text = acknowledgement(4, &Err(Problem::new(Code::InvalidEvent, "Not an event.")));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["ack"]["message"], &value["ack"]["problem"]["code"]), (&4.into(), &"invalid-event".into()));
        assert!(Format::Json.read(text.into(), &tidegate_schemas::Limits::default()).is_err());
    }
}
