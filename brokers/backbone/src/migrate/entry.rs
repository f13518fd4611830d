//! What a migration keeps in the slots; see the module `migrate` for the keys.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tidegate_schemas::limits;

use super::digest::Digest;
use crate::catalogue::Version;
use crate::log::{LogId, Position};

/// How a migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Events are copied, and new ones followed. The old backbone is the one that counts.
    Copying,
    /// Gateways hold their work, and what is left is carried over. The old backbone is still the one that counts.
    Switching,
    /// The new backbone is the one that counts.
    Moved,
    /// It cannot go on before somebody has looked after it. The old backbone is the one that counts.
    Failed,
}

impl Phase {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Switching => "switching",
            Self::Moved => "moved",
            Self::Failed => "failed",
        }
    }
}

/// `migration/state` in slot 0 of the old backbone. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct State {
    pub(super) v: Version,
    /// Random; the same on both sides.
    pub(super) id: u64,
    /// The broker, by its name in the resources of gateways.
    pub(super) to: ByteString,
    /// What and where that is, for people.
    pub(super) target: String,
    /// Whether one process has it for itself.
    pub(super) target_exclusive: bool,
    pub(super) phase: Phase,
    /// How often it was tried to switch.
    pub(super) attempt: u64,
    /// The gateway that does the work, by its node and its address.
    pub(super) coordinator: u64,
    pub(super) coordinator_http: String,
    pub(super) started_at: u64,
    /// When the new backbone became the one that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) moved_at: Option<u64>,
    /// Whether the new backbone knows that it may be used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) done: bool,
    /// Events that were not copied when it was last looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) behind: Option<u64>,
    /// What went wrong last, where something did that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// `migration/incoming` in slot 0 of the new backbone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Incoming {
    pub(super) v: Version,
    /// That of [`State`].
    pub(super) id: u64,
    /// What it comes from, for people.
    pub(super) from: String,
    /// Whether gateways may work here.
    pub(super) done: bool,
}

/// `migration/copied/TOPIC/PARTITION` in slot 0 of the old backbone: how far a partition was copied and read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Copied {
    v: Version,
    /// Everything before this position of the old backbone
    pub(super) source: Position,
    /// stands before this one of the new.
    pub(super) target: Position,
    /// How many events that is.
    pub(super) count: u64,
    /// The digest of all of them in their order.
    pub(super) hash: Digest,
    /// Events that came to the old backbone after the move, and were passed on without being read back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) late: u64,
    /// Some events, by their positions here and there, in order.
    pub(super) samples: Vec<(Position, Position)>,
    /// One in so many events is among them,
    stride: u64,
    /// and so many were copied since the last one.
    since: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Events from one sample to the next, before there are too many.
const STRIDE: u64 = 1_000;

impl Copied {
    /// Nothing yet of what stands from there on.
    pub(super) fn none(source: Position, target: Position) -> Self {
        let hash = Digest::default();
        Self { v: Version, source, target, count: 0, hash, late: 0, samples: Vec::new(), stride: STRIDE, since: 0 }
    }

    /// One more event was read back: it stands there in the old and in the new backbone.
    pub(super) fn one_more(&mut self, source: Position, target: Position, digest: Digest) {
        if self.samples.is_empty() || self.since >= self.stride {
            self.since = 0;
            self.samples.push((source, target));
            if self.samples.len() > limits::MIGRATION_SAMPLES {
                let mut place = 0;
                self.samples.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
                self.stride *= 2;
            }
        }
        self.since += 1;
        self.count += 1;
        self.hash = self.hash.then(digest);
        (self.source, self.target) = (source.next(), target.next());
    }

    /// An event that is not after that position of the old backbone, with its position in the new one; none before the first.
    pub(super) fn sample_before(&self, source: Position) -> Option<(Position, Position)> {
        let behind = self.samples.partition_point(|(known, _)| *known <= source);
        self.samples[..behind].last().copied()
    }
}

/// Before the key of [`Copied`].
pub(super) const COPIED: &str = "migration/copied/";

/// The key of [`Copied`] for a partition of a topic.
pub(super) fn copied_key(id: &LogId) -> String {
    match id {
        LogId::Topic { topic, partition } => format!("{COPIED}{topic}/{partition}"),
        other => format!("{COPIED}{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{read, write};

    #[test]
    fn samples_stay_few_and_in_order() {
        let mut copied = Copied::none(Position(5), Position(0));
        for number in 0..1_000_000u64 {
            copied.one_more(Position(5 + number), Position(2 * number), Digest::default());
        }
        assert!((16..=limits::MIGRATION_SAMPLES).contains(&copied.samples.len()), "{}", copied.samples.len());
        assert!(copied.samples.is_sorted());
        assert!(copied.samples.iter().all(|(source, target)| 2 * (source.0 - 5) == target.0));
        assert_eq!(copied.sample_before(Position(4)), None);
        assert_eq!(copied.sample_before(Position(5)), Some((Position(5), Position(0))));
        let (near, _) = copied.sample_before(Position(900_000)).unwrap();
        assert!(near.0 <= 900_000 && 900_000 - near.0 <= copied.stride, "{near}");
        assert_eq!((copied.source, copied.target, copied.count), (Position(1_000_005), Position(1_999_999), 1_000_000));
    }

    #[test]
    fn stored_values_are_the_documented_ones_and_unknown_ones_are_refused() {
        let copied = Copied::none(Position(3), Position(4));
        let text = String::from_utf8(write(&copied).to_vec()).unwrap();
        let zeros = "0".repeat(64);
        let expected = format!(
            r#"{{"v":1,"source":3,"target":4,"count":0,"hash":"{zeros}","samples":[],"stride":1000,"since":0}}"#
        );
        assert_eq!(text, expected);
        assert_eq!(read::<Copied>(b"k", text.as_bytes()).unwrap(), copied);
        let incoming = Incoming { v: Version, id: 7, from: "embedded".into(), done: false };
        let text = String::from_utf8(write(&incoming).to_vec()).unwrap();
        assert_eq!(text, r#"{"v":1,"id":7,"from":"embedded","done":false}"#);
        assert!(read::<Incoming>(b"k", br#"{"v":2,"id":7,"from":"embedded","done":false}"#).is_err());
        let state = State {
            v: Version,
            id: 7,
            to: "k".into(),
            target: "kafka://h:9092".into(),
            target_exclusive: false,
            phase: Phase::Copying,
            attempt: 0,
            coordinator: 65536,
            coordinator_http: "127.0.0.1:3500".into(),
            started_at: 1,
            moved_at: None,
            done: false,
            behind: None,
            error: None,
        };
        let text = String::from_utf8(write(&state).to_vec()).unwrap();
        assert_eq!(
            text,
            r#"{"v":1,"id":7,"to":"k","target":"kafka://h:9092","targetExclusive":false,"phase":"copying","attempt":0,"coordinator":65536,"coordinatorHttp":"127.0.0.1:3500","startedAt":1}"#
        );
        assert_eq!(read::<State>(b"k", text.as_bytes()).unwrap(), state);
        assert!(read::<State>(b"k", text.replace("copying", "else").as_bytes()).is_err());
    }
}
