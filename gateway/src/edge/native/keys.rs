//! Keys of a subscription that stand still: how they are shown, and how they are named to let them go on.

use serde::{Deserialize, Serialize};
use tidegate_backbone::Position;
use tidegate_backbone::consume::{Head, PausedKey, Which};
use tidegate_schemas::limits;
use utoipa::ToSchema;

use super::{Api, time};
use crate::edge::problem::{Code, Problem};

/// A key that stands still because an event of it used up its attempts.
#[derive(Serialize, ToSchema)]
#[schema(as = PausedKey)]
pub(super) struct Paused {
    /// The key; missing where the event has none or was trimmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The event's `id`; missing where it was trimmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// And its `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Where it is.
    at: At,
    /// Attempts that it had.
    attempts: u32,
    /// RFC 3339.
    since: String,
}

/// Where an event is.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[schema(as = EventPlace)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    topic: String,
    partition: u32,
    offset: u64,
}

impl From<PausedKey> for Paused {
    fn from(paused: PausedKey) -> Self {
        Self {
            key: paused.key.map(|key| key.to_string()),
            id: paused.event.as_ref().map(|event| event.id().to_string()),
            source: paused.event.as_ref().map(|event| event.source().to_string()),
            at: At { topic: paused.topic.to_string(), partition: paused.partition, offset: paused.position.0 },
            attempts: paused.attempts,
            since: time::text(paused.since),
        }
    }
}

/// The first of the keys that stand still.
pub(super) async fn of(api: &Api, uid: u64) -> Result<Vec<Paused>, Problem> {
    let keys = api.pubsub.paused_keys(uid, limits::PAUSED_KEYS_SHOWN).await?.value;
    Ok(keys.into_iter().map(Paused::from).collect())
}

/// What goes on: without `key` and `at` the subscription with all its keys.
#[derive(Default, Deserialize, ToSchema)]
#[schema(examples(json!({"key": "customer-7"})))]
#[serde(deny_unknown_fields)]
pub(super) struct Resume {
    /// Only this key, if it stands still.
    key: Option<String>,
    /// Only the key that stands at this event; for events without a key.
    at: Option<At>,
    /// What becomes of the event that a key stands at: `retry` (all its attempts anew), `dead-letter` or `drop`.
    #[serde(default)]
    head: HeadWord,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[schema(as = PausedHead)]
#[serde(rename_all = "kebab-case")]
enum HeadWord {
    #[default]
    Retry,
    DeadLetter,
    Drop,
}

impl Resume {
    /// How it looks, for whoever wrote something else.
    pub(super) const EXAMPLE: &str = r#"{"key": "customer-7", "head": "retry"}"#;

    /// Whether the subscription itself goes on, or only a key of it.
    pub(super) fn is_of_subscription(&self) -> bool {
        self.key.is_none() && self.at.is_none()
    }

    /// The keys and what becomes of their events.
    pub(super) fn keys(self) -> Result<(Which, Head), Problem> {
        let which = match (self.key, self.at) {
            (None, None) => Which::All,
            (Some(key), None) => Which::Key(key),
            (None, Some(At { topic, partition, offset })) => Which::At { topic, partition, position: Position(offset) },
            (Some(_), Some(_)) => {
                let detail = "The body names a key and an event; name one of them.";
                return Err(Problem::new(Code::InvalidArgument, detail));
            }
        };
        let head = match self.head {
            HeadWord::Retry => Head::Retry,
            HeadWord::DeadLetter => Head::DeadLetter,
            HeadWord::Drop => Head::Drop,
        };
        Ok((which, head))
    }
}
