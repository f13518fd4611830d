//! Every format and binding of the crate against the specification's own data, real events, and arbitrary input.

#![expect(clippy::print_stdout, reason = "the counts of cases are what these tests have to say")]

mod believed_wrong;
mod compact;
mod conformance;
mod http_cases;
mod json_cases;
mod limits;
mod properties;
mod protobuf_cases;
mod real_events;
mod round_trip;
mod tally;
mod webhooks;
