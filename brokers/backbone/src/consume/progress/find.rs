//! Where one event is on its way, for whoever asks after it.

use serde::{Deserialize, Serialize};

use super::{Lane, LaneKey, Progress, Stage};
use crate::log::Position;

/// Where an event is that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Whereabouts {
    /// It waits in memory for a free place.
    Queued {
        /// Attempts that it had.
        attempts: u32,
    },
    /// It is out.
    InFlight {
        /// Attempts before this one.
        attempts: u32,
    },
    /// It waits for its next attempt.
    Waiting {
        /// Attempts that it had.
        attempts: u32,
        /// When it is tried again at the earliest, in milliseconds since 1970.
        due: u64,
    },
    /// An event of the same key before it waits for a retry.
    Behind {
        /// Where that one stands.
        head: Position,
        /// When that one is tried again at the earliest, in milliseconds since 1970.
        due: u64,
    },
}

impl Progress {
    /// Where the event of that lane is; nothing where it is settled or was never handed in.
    pub(crate) fn find(&self, lane: LaneKey, position: Position) -> Option<Whereabouts> {
        match self.lanes.get(&lane) {
            Some(Lane::Live { queue, .. }) if queue.iter().any(|queued| queued.position == position) => {
                return Some(Whereabouts::Queued { attempts: 0 });
            }
            Some(Lane::Behind(behind)) if behind.head == position => {
                let attempts = behind.attempts;
                return Some(match behind.stage {
                    Stage::Busy => Whereabouts::InFlight { attempts },
                    Stage::Waiting | Stage::Paused => Whereabouts::Waiting { attempts, due: behind.due },
                    Stage::Loading | Stage::Ready => Whereabouts::Queued { attempts },
                });
            }
            Some(Lane::Behind(behind)) if (behind.head..=behind.seen).contains(&position) => {
                return Some(Whereabouts::Behind { head: behind.head, due: behind.due });
            }
            _ => {}
        }
        if self.open.contains(&position) {
            return Some(Whereabouts::InFlight { attempts: 0 });
        }
        let unread = |(_, open): &(Position, std::collections::BTreeSet<Position>)| open.contains(&position);
        self.settled.as_ref().is_some_and(unread).then_some(Whereabouts::Queued { attempts: 0 })
    }
}
