//! When a process may take a slot over, and when it gives one up: a state machine of one slot in one process. It does no I/O,
//! and the time, that since the machine booted, suspension included, is an argument.
//!
//! | | |
//! |---|---|
//! | silence | counts from the newest accepted frame that was read, but only through an unbroken run of *signs*: something was read, or the log's end was asked for, told in time, and read up to. A broker that is away is no silent owner, and neither is a machine that slept |
//! | slow broker | where answers take longer than [`limits::CLAIM_PROBE_PROMPT`], signs may be that much further apart, and silence must be that much longer, because the frames of an owner take as long |
//! | takeover | after [`limits::CLAIM_SILENCE`] of it, later by [`limits::CLAIM_RANK_DELAY`] for each candidate that comes first |
//! | return | after a break of that run the owner has [`limits::CLAIM_RETURN_SILENCE`]: it was cut off as well, most likely, and sends again what was under way |
//! | Release | is followed without silence, by the first candidate at once |
//! | moving away | when the slot belongs elsewhere for [`limits::CLAIM_SETTLE_TIME`] without a break |

#[cfg(test)]
mod tests;

use std::time::Duration;

use tidegate_schemas::limits;

use crate::lane::NodeId;

/// What the rest of the cluster looks like from here, for one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// Whether this process may own the slot at all.
    pub(crate) may_own: bool,
    /// How many candidates come before this process.
    pub(crate) rank: u32,
    /// Whether another process should own the slot, though this one does.
    pub(crate) elsewhere: bool,
    /// Whether the broker has not answered this process for a while, in whichever slot.
    pub(crate) unanswered: bool,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until then.
    Wait(Duration),
    /// Ask for the log's end.
    Probe,
    /// Announce this process as the owner.
    Announce,
    /// Give the slot up.
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Following,
    Owning,
}

/// One slot as one process sees it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    node: NodeId,
    role: Role,
    /// Who wrote the newest accepted frame.
    owner: Option<NodeId>,
    released: bool,
    /// When the newest accepted frame was read.
    frame_at: Duration,
    /// The last sign that the log was read to its end, and since when they have come without a break.
    sign_at: Option<Duration>,
    live_since: Duration,
    /// Whether signs have come before, so that one after a break tells that the broker was away.
    was_live: bool,
    /// Whether they came again after a break, and no frame since.
    returned: bool,
    /// When the log's end was asked for last.
    probed_at: Option<Duration>,
    /// By how much answers are late.
    lateness: Duration,
    /// No Announce before that.
    not_before: Duration,
    /// Since when the slot belongs elsewhere.
    elsewhere_since: Option<Duration>,
}

impl Machine {
    /// A process that has read the slot to some place at that time.
    pub(crate) fn new(node: NodeId, now: Duration) -> Self {
        Self {
            node,
            role: Role::Following,
            owner: None,
            released: false,
            frame_at: now,
            sign_at: None,
            live_since: now,
            was_live: false,
            returned: false,
            probed_at: None,
            lateness: Duration::ZERO,
            not_before: Duration::ZERO,
            elsewhere_since: None,
        }
    }

    /// An accepted frame was read; the owner and whether it has released are those after it.
    pub(crate) fn frame(&mut self, now: Duration, owner: Option<NodeId>, released: bool) {
        self.owner = owner;
        self.released = released;
        self.frame_at = now;
        self.returned = false;
    }

    /// The log was read up to an end that was told in time.
    pub(crate) fn sign(&mut self, now: Duration) {
        if !self.live(now) {
            self.live_since = now;
            self.returned = self.was_live;
        }
        self.was_live = true;
        self.sign_at = Some(now);
    }

    /// The same, up to an end that was asked for so long ago.
    pub(crate) fn answered(&mut self, now: Duration, asked_before: Duration) {
        self.sign(now);
        // Known from the next one on: a broker that stood still for a moment was away. What was once is forgotten slowly.
        // It is given up after a while, unless the machine slept over it.
        let late = asked_before.min(limits::CLAIM_PROBE_TIMEOUT).saturating_sub(limits::CLAIM_PROBE_PROMPT);
        self.lateness = late.max(self.lateness * 3 / 4);
    }

    /// The log's end is asked for.
    pub(crate) fn probing(&mut self, now: Duration) {
        self.probed_at = Some(now);
    }

    /// The slot has to be looked for again: what was known of its end is known no longer.
    pub(crate) fn lost_sight(&mut self) {
        self.sign_at = None;
    }

    /// This process owns the slot.
    pub(crate) fn opened(&mut self) {
        self.role = Role::Owning;
        self.owner = Some(self.node);
        self.released = false;
        self.elsewhere_since = None;
    }

    /// This process follows the slot again, from what it knew as its owner, or after an Announce that came to nothing. It
    /// waits so long before it announces itself again.
    pub(crate) fn follows(&mut self, now: Duration, owner: Option<NodeId>, released: bool, pause: Duration) {
        self.role = Role::Following;
        self.owner = owner;
        self.released = released;
        self.frame_at = now;
        self.sign_at = None;
        self.was_live = false;
        self.returned = false;
        self.probed_at = None;
        self.not_before = now + pause;
    }

    fn live(&self, now: Duration) -> bool {
        self.sign_at.is_some_and(|sign| now.saturating_sub(sign) <= limits::CLAIM_SIGN_TIMEOUT + self.lateness)
    }

    /// What is to be done at that time.
    pub(crate) fn next(&mut self, now: Duration, outlook: Outlook) -> Next {
        match self.role {
            Role::Owning => self.own(now, outlook),
            Role::Following => self.follow(now, outlook),
        }
    }

    fn own(&mut self, now: Duration, outlook: Outlook) -> Next {
        if !outlook.may_own {
            return Next::Release;
        }
        if !outlook.elsewhere {
            self.elsewhere_since = None;
            return Next::Wait(now + limits::CLAIM_LOOK_INTERVAL);
        }
        let since = *self.elsewhere_since.get_or_insert(now);
        let due = since + limits::CLAIM_SETTLE_TIME;
        if now >= due { Next::Release } else { Next::Wait(due.min(now + limits::CLAIM_LOOK_INTERVAL)) }
    }

    fn follow(&mut self, now: Duration, outlook: Outlook) -> Next {
        let look = now + limits::CLAIM_LOOK_INTERVAL;
        if !outlook.may_own {
            return Next::Wait(look);
        }
        let due = self.due(outlook.rank);
        let live = self.live(now);
        if live && now >= due {
            return Next::Announce;
        }
        // What was read is a sign as well, so that an owner that writes keeps others from asking.
        // What comes by itself does not tell that anything gets to the broker.
        let last = if outlook.unanswered { self.probed_at } else { self.sign_at.max(self.probed_at) };
        let last = last.filter(|last| *last <= now);
        let probe = last.map_or(now, |last| last + limits::CLAIM_PROBE_INTERVAL);
        if now >= probe {
            return Next::Probe;
        }
        Next::Wait(if live { due.min(probe) } else { probe }.min(look))
    }

    /// From when on the slot may be taken over, as things stand.
    fn due(&self, rank: u32) -> Duration {
        let delay = limits::CLAIM_RANK_DELAY * rank;
        let due = match self.owner {
            // Nobody writes under this process's name but itself, and it does not: what it announced came too late.
            Some(owner) if owner == self.node && !self.released => self.frame_at,
            None => self.frame_at + delay,
            Some(_) if self.released => self.frame_at + delay,
            Some(_) => {
                let silence = if self.returned { limits::CLAIM_RETURN_SILENCE } else { limits::CLAIM_SILENCE };
                self.frame_at.max(self.live_since) + silence + self.lateness + delay
            }
        };
        due.max(self.not_before)
    }
}
