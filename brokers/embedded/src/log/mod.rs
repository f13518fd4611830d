//! The log itself. FORMAT.md says what is on the disk; the files here keep it:
//!
//! | file | does |
//! |---|---|
//! | `manifest` | which format the directory has |
//! | `frame`, `segment` | the stored forms |
//! | `index`, `runs` | where a record stands in a segment; in which segment it stands |
//! | `scan`, `recovery` | reading a segment whole; opening a directory |
//! | `queue`, `writer`, `retention` | what waits to be written; the one that writes; space given back |
//! | `reader`, `recent`, `pool` | reading from files; from memory; the threads that do it |
//! | `shared` | the state between them |

pub(crate) mod frame;
pub(crate) mod index;
pub(crate) mod manifest;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod reader;
pub(crate) mod recent;
pub(crate) mod recovery;
pub(crate) mod retention;
pub(crate) mod runs;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod shared;
pub(crate) mod writer;
