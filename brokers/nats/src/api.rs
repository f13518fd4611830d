//! What is asked of JetStream, and only that: its requests and answers are JSON on subjects of the server.
//!
//! They are written here and not taken from the client library, because that one expects fields that servers of version 2.9
//! do not send, and because all of them are asked of the leader of a stream, never of a copy that may lag behind.

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_backbone::{Durability, Position, Result};

use crate::connection::Connection;
use crate::error::{MESSAGE_NOT_FOUND, Refusal, STREAM_NAME_IN_USE, STREAM_NOT_FOUND};

/// The position of a sequence: sequences begin at 1, positions at 0, as in every log.
pub(crate) fn position(sequence: u64) -> Position {
    Position(sequence.saturating_sub(1))
}

/// The sequence at a position.
pub(crate) fn sequence(position: Position) -> u64 {
    position.0.saturating_add(1)
}

/// The settings of a stream that are looked at; the others are in [`create`].
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct StreamConfig {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) subjects: Vec<String>,
    #[serde(default)]
    pub(crate) num_replicas: u32,
    /// `file` or `memory`.
    #[serde(default)]
    pub(crate) storage: String,
}

impl StreamConfig {
    /// What an acknowledged message of the stream survives. No server tells whether it synchronises its disk before it
    /// acknowledges; by default none does.
    pub(crate) fn durability(&self) -> Durability {
        match (self.num_replicas, self.storage.as_str()) {
            (2.., _) => Durability::Replicated,
            (_, "memory") => Durability::Memory,
            _ => Durability::Os,
        }
    }
}

/// How a stream stands.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct StreamState {
    #[serde(default)]
    pub(crate) messages: u64,
    #[serde(default)]
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) first_seq: u64,
    #[serde(default)]
    pub(crate) last_seq: u64,
    /// Messages by subject, of those that were asked for.
    #[serde(default)]
    subjects: Option<std::collections::BTreeMap<String, u64>>,
}

impl StreamState {
    /// The first position that can be read, where the stream is one log.
    pub(crate) fn begin(&self) -> Position {
        if self.messages == 0 { self.end() } else { position(self.first_seq) }
    }

    /// Behind the last position.
    pub(crate) fn end(&self) -> Position {
        Position(self.last_seq)
    }

    /// How many messages there are of those that were asked for.
    pub(crate) fn count_of_subjects(&self) -> u64 {
        self.subjects.iter().flat_map(|subjects| subjects.values()).sum()
    }

    /// The share of the bytes that the messages have which were asked for.
    pub(crate) fn bytes_of_subjects(&self) -> u64 {
        let share = u128::from(self.bytes) * u128::from(self.count_of_subjects()) / u128::from(self.messages.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// A stream.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Stream {
    #[serde(default)]
    pub(crate) config: StreamConfig,
    #[serde(default)]
    pub(crate) state: StreamState,
    /// When it was created: one that is created again under the same name is another one.
    #[serde(default)]
    pub(crate) created: String,
}

/// What a stream is created with.
#[derive(Clone, Debug)]
pub(crate) struct NewStream {
    pub(crate) name: String,
    pub(crate) subjects: Vec<String>,
    pub(crate) description: String,
    pub(crate) replicas: u32,
    /// Whether single messages can never be deleted.
    pub(crate) sealed: bool,
    /// Whether only the newest message of each subject is kept.
    pub(crate) newest_only: bool,
}

/// How creating a stream ended.
#[derive(Debug)]
pub(crate) enum Created {
    /// It is there as it was asked for; whether it was not before.
    Done(bool),
    /// One of that name is there with other settings.
    Exists,
    /// The server refuses.
    Refused(Refusal),
}

/// A message that was asked for by itself.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    seq: u64,
    #[serde(default)]
    data: String,
}

impl Message {
    /// Where it stands.
    pub(crate) fn position(&self) -> Position {
        position(self.seq)
    }

    /// The number that it holds.
    pub(crate) fn number(&self) -> Option<u64> {
        let data = base64::engine::general_purpose::STANDARD.decode(&self.data).ok()?;
        std::str::from_utf8(&data).ok()?.parse().ok()
    }
}

/// Which message is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    /// The last one of a subject.
    Last(&'a str),
    /// The first one of a subject from a position on.
    From(&'a str, Position),
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// With that position.
    Position(Position),
    /// With the first message of that time or later, in milliseconds since 1970; without its payload.
    Time(i64),
}

impl Connection {
    fn refusal(&self, action: &str, refusal: &Refusal) -> tidegate_backbone::Error {
        refusal.error(action, self.record_bytes_max)
    }

    /// Creates a stream; done durably as far as NATS ever does that.
    pub(crate) async fn create_stream(&self, stream: &NewStream) -> Result<Created> {
        let action = format!("creating the stream {}", stream.name);
        let config = json!({
            "name": stream.name,
            "description": stream.description,
            "subjects": stream.subjects,
            "retention": "limits",
            "storage": "file",
            "num_replicas": stream.replicas,
            "discard": if stream.newest_only { "old" } else { "new" },
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_msg_size": -1,
            "max_msgs_per_subject": if stream.newest_only { 1 } else { -1 },
            // The least that the server takes: repeats are found by Tidegate, the same on every broker.
            "duplicate_window": 100_000_000_u64,
            "deny_delete": stream.sealed,
        });
        let subject = format!("$JS.API.STREAM.CREATE.{}", stream.name);
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            did_create: bool,
        }
        match self.call::<Answer>(&action, subject, bytes(&config), true).await? {
            Ok(answer) => Ok(Created::Done(answer.did_create)),
            Err(refusal) if refusal.err_code == STREAM_NAME_IN_USE => Ok(Created::Exists),
            Err(refusal) => Ok(Created::Refused(refusal)),
        }
    }

    /// A stream as it stands, with the count of those subjects where a filter is given; none where it is not there.
    pub(crate) async fn stream(&self, name: &str, subjects: Option<&str>) -> Result<Option<Stream>> {
        let body = subjects.map_or_else(Vec::new, |filter| bytes(&json!({ "subjects_filter": filter })));
        let action = format!("asking for the stream {name}");
        match self.call(&action, format!("$JS.API.STREAM.INFO.{name}"), body, false).await? {
            Ok(stream) => Ok(Some(stream)),
            Err(refusal) if refusal.err_code == STREAM_NOT_FOUND => Ok(None),
            Err(refusal) => Err(self.refusal(&action, &refusal)),
        }
    }

    /// Every stream of the account.
    pub(crate) async fn streams(&self) -> Result<Vec<Stream>> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            total: usize,
            #[serde(default)]
            streams: Option<Vec<Stream>>,
        }
        let action = "listing the streams";
        let mut all: Vec<Stream> = Vec::new();
        loop {
            let body = bytes(&json!({ "offset": all.len() }));
            let page = self.call::<Page>(action, "$JS.API.STREAM.LIST".to_owned(), body, false).await?;
            let page = page.map_err(|refusal| self.refusal(action, &refusal))?;
            let streams = page.streams.unwrap_or_default();
            let is_last = streams.is_empty();
            all.extend(streams);
            if is_last || all.len() >= page.total {
                return Ok(all);
            }
        }
    }

    /// Deletes a stream; what is not there is no error.
    pub(crate) async fn delete_stream(&self, name: &str) -> Result<()> {
        let action = format!("deleting the stream {name}");
        let answer = self.call::<Ignored>(&action, format!("$JS.API.STREAM.DELETE.{name}"), Vec::new(), true).await?;
        match answer {
            Err(refusal) if refusal.err_code != STREAM_NOT_FOUND => Err(self.refusal(&action, &refusal)),
            _ => Ok(()),
        }
    }

    /// Lets go of messages: those before a position, of one subject or all.
    pub(crate) async fn purge(&self, stream: &str, subject: Option<&str>, before: Option<Position>) -> Result<()> {
        let action = format!("trimming the stream {stream}");
        let mut body = serde_json::Map::new();
        if let Some(subject) = subject {
            body.insert("filter".to_owned(), subject.into());
        }
        if let Some(before) = before {
            body.insert("seq".to_owned(), sequence(before).into());
        }
        let subject = format!("$JS.API.STREAM.PURGE.{stream}");
        let answer = self.call::<Ignored>(&action, subject, bytes(&body), true).await?;
        answer.map(|_| ()).map_err(|refusal| self.refusal(&action, &refusal))
    }

    /// One message, from the leader of the stream; none where there is no such one.
    pub(crate) async fn message(&self, stream: &str, which: Which<'_>) -> Result<Option<Message>> {
        #[derive(Deserialize)]
        struct Answer {
            message: Message,
        }
        let body = match which {
            Which::Last(subject) => json!({ "last_by_subj": subject }),
            Which::From(subject, position) => json!({ "seq": sequence(position), "next_by_subj": subject }),
        };
        let action = format!("reading the stream {stream}");
        match self.call::<Answer>(&action, format!("$JS.API.STREAM.MSG.GET.{stream}"), bytes(&body), false).await? {
            Ok(answer) => Ok(Some(answer.message)),
            Err(refusal) if refusal.err_code == MESSAGE_NOT_FOUND => Ok(None),
            Err(refusal) => Err(self.refusal(&action, &refusal)),
        }
    }

    /// Ends a reader: a kindness only, the server lets go of it by itself after a while.
    pub(crate) async fn let_go(&self, stream: &str, consumer: &str) {
        let _ = self.client.publish(format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}"), bytes::Bytes::new()).await;
    }

    /// Makes a reader; gives its name and how many messages there are for it.
    pub(crate) async fn create_consumer(
        &self,
        stream: &str,
        filter: Option<&str>,
        start: Start,
    ) -> Result<(String, u64)> {
        #[derive(Deserialize)]
        struct Consumer {
            name: String,
            #[serde(default)]
            num_pending: u64,
        }
        #[derive(Serialize)]
        struct Config<'a> {
            ack_policy: &'static str,
            deliver_policy: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            opt_start_seq: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            opt_start_time: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            filter_subject: Option<&'a str>,
            replay_policy: &'static str,
            headers_only: bool,
            inactive_threshold: u64,
            mem_storage: bool,
            num_replicas: u32,
        }
        let action = format!("following the stream {stream}");
        let idle = tidegate_schemas::limits::NATS_CONSUMER_IDLE.as_nanos();
        let mut config = Config {
            ack_policy: "none",
            deliver_policy: "by_start_sequence",
            opt_start_seq: None,
            opt_start_time: None,
            filter_subject: filter,
            replay_policy: "instant",
            headers_only: false,
            inactive_threshold: u64::try_from(idle).unwrap_or(u64::MAX),
            mem_storage: true,
            num_replicas: 1,
        };
        match start {
            Start::Position(position) => config.opt_start_seq = Some(sequence(position)),
            Start::Time(unix_milliseconds) => {
                let time = jiff::Timestamp::from_millisecond(unix_milliseconds).unwrap_or(jiff::Timestamp::MAX);
                config.opt_start_time = Some(time.to_string());
                config.deliver_policy = "by_start_time";
                config.headers_only = true;
            }
        }
        let body = bytes(&json!({ "stream_name": stream, "config": config }));
        let answer = self.call::<Consumer>(&action, format!("$JS.API.CONSUMER.CREATE.{stream}"), body, false).await?;
        let consumer = answer.map_err(|refusal| self.refusal(&action, &refusal))?;
        Ok((consumer.name, consumer.num_pending))
    }
}

#[derive(Debug, Deserialize)]
struct Ignored {}

fn bytes(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("plain values are always JSON")
}
