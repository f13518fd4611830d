//! Medians, percentiles and tables.

/// One contender's figures over the rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The figure in the middle; between the two in the middle where their number is even.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[odd / 2],
            even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
        }
    }

    /// The figure below which `part` of all lie.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let sorted = self.sorted();
        let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
        sorted[((last as f64) * part).round() as usize]
    }

    /// Each figure divided by that of the same round of another contender.
    pub(crate) fn ratio(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one / other).collect())
    }

    /// Both of each round together.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one + other).collect())
    }

    /// The smaller one of both in each round.
    pub(crate) fn lower(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one.min(*other)).collect())
    }

    /// Median, and what the rounds varied between.
    pub(crate) fn text(&self, decimals: usize) -> String {
        format!("{:.decimals$} ({:.decimals$} .. {:.decimals$})", self.median(), self.quantile(0.0), self.quantile(1.0))
    }
}

impl FromIterator<f64> for Figures {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

/// Prints a table as Markdown, so that it can stand in the documents as it is.
pub(crate) fn print_table(heads: &[&str], rows: &[Vec<String>]) {
    println!("| {} |", heads.join(" | "));
    println!("|{}", "---|".repeat(heads.len()));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn figures() {
        let of = |figures: &[f64]| figures.iter().copied().collect::<Figures>();
        assert_eq!(of(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(of(&[]).median().is_nan());
        let hundred: Figures = (0..=100).map(f64::from).collect();
        assert_eq!((hundred.quantile(0.5), hundred.quantile(0.99), hundred.quantile(1.0)), (50.0, 99.0, 100.0));
        assert_eq!(of(&[6.0, 9.0]).ratio(&of(&[3.0, 9.0])).text(1), "1.5 (1.0 .. 2.0)");
        assert_eq!(of(&[6.0, 9.0]).plus(&of(&[1.0, 3.0])).text(0), "10 (7 .. 12)");
        assert_eq!(of(&[6.0, 9.0]).lower(&of(&[7.0, 3.0])).text(0), "4 (3 .. 6)");
    }
}
