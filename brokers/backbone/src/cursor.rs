//! A place in a whole topic: one position for each partition. What users hold is its text, which is opaque to them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::log::Position;

/// See the module. Written as `c` and the positions of the partitions in order, parted by `-`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cursor(pub Vec<Position>);

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, position) in self.0.iter().enumerate() {
            write!(formatter, "{}{position}", if index == 0 { "c" } else { "-" })?;
        }
        Ok(())
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}

impl TryFrom<String> for Cursor {
    type Error = NoCursor;

    fn try_from(text: String) -> Result<Self, NoCursor> {
        text.parse()
    }
}

/// A text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a position; use one that the gateway gave, such as c12 or c12-40 (one number for each partition)")]
pub struct NoCursor;

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let positions = text.strip_prefix('c').ok_or(NoCursor)?;
        let read = |number: &str| number.parse().map(Position).map_err(|_| NoCursor);
        positions.split('-').map(read).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for positions in [vec![0], vec![7, 0, u64::MAX]] {
            let cursor = Cursor(positions.into_iter().map(Position).collect());
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for text in ["", "c", "12", "c1-", "c-1", "c1,2", "latest"] {
            assert_eq!(text.parse::<Cursor>(), Err(NoCursor), "{text}");
        }
    }
}
