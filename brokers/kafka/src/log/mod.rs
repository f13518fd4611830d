//! The logs on the broker.
//!
//! | file | does |
//! |---|---|
//! | `calls` | threads for calls of the client library that wait |
//! | `together` | questions of many, asked of the broker at once |
//! | `topics` | creating, deleting and finding topics, with their settings |
//! | `ends` | where logs begin and end, asked of their leaders, many at once, and again until these are ready |
//! | `leaders` | what leaders answer to such a question, sorted by partition |
//! | `producer` | appends in their order, bounded; a client that has failed for good is replaced |
//! | `readers` | consumers with partitions assigned by hand, and the thread that assigns |
//! | `tail` | one reader of one log |
//! | `sizes` | about how large records are |

pub(crate) mod calls;
pub(crate) mod ends;
pub(crate) mod leaders;
pub(crate) mod producer;
pub(crate) mod readers;
pub(crate) mod sizes;
pub(crate) mod tail;
pub(crate) mod together;
pub(crate) mod topics;
