//! The acknowledgement rule: when an owner may know that a frame of its own was accepted, without reading the log back.
//!
//! Frame n is known accepted if frame n - 1 is, and the append of frame n told exactly the position behind the one up to
//! which the log is known. Then nothing stands between the two, so that no other owner's Announce and no missing frame
//! can. Everything else is read back, and the position that was read up to is the new anchor.

use std::collections::BTreeMap;

use crate::log::Position;

/// What the append of a frame told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// The frame stands there.
    At(Position),
    /// The frame stands somewhere.
    Somewhere,
    /// Nothing that could be relied on: it failed, or its outcome is not known.
    Nothing,
}

/// What the owner may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// This frame is known accepted, there.
    Accepted {
        /// Which.
        sequence: u64,
        /// Where.
        position: Position,
    },
    /// The next frame's append has told nothing yet, or no frame is out.
    Wait,
    /// The log must be read from behind the anchor to its end.
    ReadBack,
}

/// The frames of an owner that are out, and what is known of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    known: u64,
    anchor: Position,
    sent: u64,
    told: BTreeMap<u64, Told>,
}

impl Window {
    /// After frame `known` was read back and accepted, and the log was read up to `anchor`.
    pub fn new(known: u64, anchor: Position) -> Self {
        Self { known, anchor, sent: known, told: BTreeMap::new() }
    }

    /// Counts a frame that is sent now, and gives its sequence.
    pub fn send(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// What the append of that frame told. A frame that was sent more than once may be told more than once.
    pub fn told(&mut self, sequence: u64, told: Told) {
        if sequence > self.known && sequence <= self.sent {
            self.told.insert(sequence, told);
        }
    }

    /// What follows from what was told; to be called until it is not [`Progress::Accepted`].
    pub fn progress(&mut self) -> Progress {
        let sequence = self.known + 1;
        match self.told.get(&sequence) {
            None => Progress::Wait,
            Some(Told::At(position)) if *position == self.anchor.next() => {
                let position = *position;
                self.told.remove(&sequence);
                self.known = sequence;
                self.anchor = position;
                Progress::Accepted { sequence, position }
            }
            Some(_) => Progress::ReadBack,
        }
    }

    /// Whether the append of the next frame told nothing that could be relied on.
    pub fn is_untold(&self) -> bool {
        self.told.get(&(self.known + 1)) == Some(&Told::Nothing)
    }

    /// The log was read back up to `anchor`, and the accept rule has accepted frames up to `known`. What was told of
    /// later frames is forgotten: they are not there, and are to be sent again.
    pub fn read_back(&mut self, known: u64, anchor: Position) {
        self.known = self.known.max(known);
        self.anchor = self.anchor.max(anchor);
        self.told.clear();
    }

    /// The last frame that is known accepted.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// The last frame that was sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Frames that are out and not known accepted.
    pub fn out(&self) -> u64 {
        self.sent - self.known
    }

    /// Up to where the log is known.
    pub fn anchor(&self) -> Position {
        self.anchor
    }
}
