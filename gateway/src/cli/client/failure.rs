//! How a command fails, what is printed about it, and the exit code.

use std::io;

use super::problem::Problem;
use super::text::printable;
use crate::cli::arguments::Server;

/// Refused or failed.
const FAILED: u8 = 1;
/// Wrong usage, as clap has it.
const USAGE: u8 = 2;
/// The change may have been made.
const UNKNOWN: u8 = 3;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The arguments do not fit together, or not what they name.
    #[error("{0}")]
    Usage(String),
    /// The gateway refused.
    #[error("{}", .0.lines().join("; "))]
    Refused(Box<Problem>),
    /// No connection came about: nothing was sent.
    #[error("no gateway answers at {url}: {reason}")]
    Unreachable {
        /// What was tried.
        url: String,
        /// Why it failed.
        reason: String,
    },
    /// The connection broke, or nothing came in time, in a request that changes nothing.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The same in a request that may have had its effect.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Something that was to be sent breaks rules.
    #[error("{what}: {}", .faults.join("; "))]
    Invalid {
        /// What is not valid.
        what: String,
        /// Everything that is wrong with it.
        faults: Vec<String>,
    },
    /// Something on this side.
    #[error("{0}")]
    Local(String),
    /// The result could not be printed.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
    /// One of the above, at a place in a file.
    #[error("{place}: {failure}")]
    At {
        /// File and line.
        place: String,
        /// What happened there.
        failure: Box<Self>,
    },
}

impl Failure {
    /// The same at a place in a file.
    pub(super) fn at(self, place: impl Into<String>) -> Self {
        Self::At { place: place.into(), failure: Box::new(self) }
    }

    /// Whether it is not known if the request had its effect.
    pub(super) fn is_outcome_unknown(&self) -> bool {
        self.exit_code() == UNKNOWN
    }

    /// The exit code that says it.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Refused(problem) if problem.is_outcome_unknown() => UNKNOWN,
            Self::Unknown(_) => UNKNOWN,
            Self::At { failure, .. } => failure.exit_code(),
            Self::Refused(_)
            | Self::Unreachable { .. }
            | Self::NoAnswer(_)
            | Self::Invalid { .. }
            | Self::Local(_)
            | Self::Output(_) => FAILED,
        }
    }

    /// The lines to print, fit for a terminal: what is wrong, then how to mend it.
    pub(super) fn lines(&self, server: &Server) -> Vec<String> {
        match self {
            Self::Refused(problem) => problem.lines(),
            Self::Unreachable { .. } => {
                let mut lines = vec![printable(&self.to_string()).into_owned()];
                lines.push("start one with: tidegate dev".to_owned());
                if server.to_string() == Server::DEFAULT {
                    lines.push("or name another with --server URL".to_owned());
                }
                lines
            }
            Self::Invalid { what, faults } => {
                std::iter::once(what).chain(faults).map(|line| printable(line).into_owned()).collect()
            }
            Self::At { place, failure } => {
                let mut lines = failure.lines(server);
                if let Some(first) = lines.first_mut() {
                    *first = format!("{}: {first}", printable(place));
                }
                lines
            }
            Self::Usage(_) | Self::NoAnswer(_) | Self::Unknown(_) | Self::Local(_) | Self::Output(_) => {
                vec![printable(&self.to_string()).into_owned()]
            }
        }
    }
}
