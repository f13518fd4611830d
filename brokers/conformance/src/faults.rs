//! Which of the cases that bring about faults of network and broker are run.

use std::time::Duration;

use crate::runner::Case;

/// Which faulted cases are run; they take long, because brokers and clients do to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// None of them.
    None,
    /// All of them.
    All,
    /// As many as begin within that time, from a place in their order that the seed gives.
    Within {
        /// For the faulted cases of one run.
        budget: Duration,
        /// Where in their order they begin, so that each has its turn.
        seed: u64,
    },
}

/// What a case that was left out is listed with.
pub(crate) const LEFT_OUT: &str = "left out by TIDEGATE_FAULTS in this run";

impl Faults {
    /// What `TIDEGATE_FAULTS` says: `none`, `all`, or seconds (60). The seed is `TIDEGATE_SEED`, else the time of day.
    ///
    /// # Panics
    ///
    /// Where either variable is something else, so that a typing error does not run the default.
    pub fn from_environment() -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a whole number")))
        };
        match std::env::var("TIDEGATE_FAULTS").as_deref() {
            Ok("none") => Self::None,
            Ok("all") => Self::All,
            other => {
                let seconds = match other {
                    Ok(_) => number("TIDEGATE_FAULTS").unwrap_or_default(),
                    Err(_) => 60,
                };
                let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
                let seed = number("TIDEGATE_SEED").unwrap_or(now);
                Self::Within { budget: Duration::from_secs(seconds), seed }
            }
        }
    }

    /// Puts the faulted cases in the order in which they are run.
    pub(crate) fn order<'a>(&self, mut cases: Vec<&'a Case>) -> Vec<&'a Case> {
        if let (Self::Within { seed, .. }, false) = (self, cases.is_empty()) {
            let first = usize::try_from(seed % cases.len() as u64).unwrap_or_default();
            cases.rotate_left(first);
        }
        cases
    }

    /// Whether another case is begun after so much time.
    pub(crate) fn goes_on(&self, after: Duration) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Within { budget, .. } => after < *budget,
        }
    }
}
