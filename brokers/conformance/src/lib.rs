//! What it means that a broker keeps the contract: one suite of cases, run by the tests of every adapter.
//!
//! An adapter implements [`Fixture`], runs [`run`] over [`cases()`], and looks at the [`Report`]. `README.md` beside this
//! crate says how, and lists the cases. The case ids are those of the specification ([`specification::SPECIFIED`]); one
//! that no case implements is in [`specification::LEFT_OUT`] with its reason, and a test keeps the two complete.
//!
//! Cases assert what they counted and where it stood, never how long it took: a wait has a generous limit against
//! hanging, and time that matters to the product is a [`HeldClock`] that the case moves.

pub mod broker;
pub mod cases;
mod clock;
mod cluster;
mod connection;
pub mod document;
mod expect;
mod faults;
mod faulty;
mod fixture;
pub mod linearizable;
mod machine;
mod meddling;
mod misbehaving;
mod process;
pub mod proxy;
mod report;
mod runner;
pub mod specification;

pub use broker::{Act, Broker, Linked};
pub use cases::cases;
pub use clock::HeldClock;
pub use connection::{Connection, Link};
pub use expect::{Failure, Outcome};
pub use faults::Faults;
pub use faulty::Refusing;
pub use fixture::{Fixture, Need};
pub use machine::not_had;
pub use meddling::Meddling;
pub use process::{Process, Sink};
pub use proxy::{Direction, Proxy};
pub use report::{Report, Result, table};
pub use runner::{Case, Ended, run, run_on_broker, run_with};
