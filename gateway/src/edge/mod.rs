//! The protocols that clients speak, and what every one of them stands on.
//!
//! | module | does |
//! |---|---|
//! | [`listener`] | takes connections and requests within limits of number, size and pace, and lets go of them gracefully |
//! | [`guard`] | refuses what a web page of another site could send, and gives every path its one canonical form |
//! | [`native`] | the routes of the native HTTP API |
//! | [`problem`] | what went wrong, as RFC 9457 says it, with a stable code |
//! | [`startup`] | answers while the rest is not open yet |
//!
//! A request passes the listener, then the guard, then an [`axum::Router`] whose routes are the protocol's. Whatever any
//! of them refuses is a [`problem::Problem`]; the listener writes it down in the shape of the path's protocol.

pub mod guard;
pub mod listener;
pub mod native;
pub mod problem;
pub mod startup;
