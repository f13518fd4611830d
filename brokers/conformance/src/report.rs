//! What a run of the suite came to, and the table of the cases.

use std::fmt::Write as _;

use crate::runner::{Case, Ended};

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Result {
    /// The case.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// How it ended.
    pub ended: Ended,
}

/// A run of the suite, in the order of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One for each case.
    pub results: Vec<Result>,
}

impl Report {
    pub(crate) fn new(mut results: Vec<Result>) -> Self {
        results.sort_by_key(|result| order(result.id));
        Self { results }
    }

    /// Takes out of the cases those that the tests of a backbone do not run there, and gives them with their reasons, so that
    /// [`crate::document`] can tell them. A reason is a line without `;` and `|`.
    ///
    /// # Panics
    ///
    /// Where an id is none of those cases.
    #[must_use = "what is left out belongs to the report of the run"]
    pub fn left_out(cases: &mut Vec<Case>, reasons: &[(&str, &str)]) -> Self {
        let take = |(id, reason): &(&str, &str)| {
            let place = cases.iter().position(|case| case.id == *id);
            let case = cases.remove(place.unwrap_or_else(|| panic!("{id} is left out, and is no case")));
            Result { id: case.id, title: case.title, ended: Ended::NotRun((*reason).to_owned()) }
        };
        Self::new(reasons.iter().map(take).collect())
    }

    /// This and what a run of other cases came to.
    #[must_use = "both are taken"]
    pub fn and(mut self, other: Self) -> Self {
        self.results.extend(other.results);
        Self::new(self.results)
    }

    /// The cases that failed, each with what was expected and seen; empty where the adapter conforms.
    pub fn failures(&self) -> Vec<String> {
        self.results
            .iter()
            .filter_map(|result| match &result.ended {
                Ended::Failed(failure) => Some(format!("{} ({}): {failure}", result.id, result.title)),
                _ => None,
            })
            .collect()
    }
}

/// Groups in the order of the specification, then by number.
pub(crate) fn order(id: &str) -> (usize, String) {
    let group = id.split('-').next().unwrap_or_default();
    let place = ["PUB", "TAIL", "GRP", "RET", "REQ", "JRN", "CLM"].iter().position(|known| *known == group);
    (place.unwrap_or(usize::MAX), id.to_owned())
}

/// The cases as a table: id, title, needs.
pub fn table(cases: &[Case]) -> String {
    let mut sorted: Vec<&Case> = cases.iter().collect();
    sorted.sort_by_key(|case| order(case.id));
    let mut text = "| id | shows that | needs |\n|---|---|---|\n".to_owned();
    for case in sorted {
        let needs: Vec<String> = case.needs.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "| {} | {} | {} |", case.id, case.title, needs.join(", "));
    }
    text
}
