//! Aligned columns.

/// Rows under a header; numbers stand to the right.
#[derive(Debug)]
pub(super) struct Table {
    header: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns. One whose name begins with `>` is aligned to the right.
    pub(super) fn new(header: &'static [&'static str]) -> Self {
        Self { header, rows: Vec::new() }
    }

    /// Adds a row, which has a cell for each column.
    pub(super) fn push(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.header.len(), "a cell for each column");
        self.rows.push(row);
    }

    /// The lines, the header first, without blanks at their ends.
    pub(super) fn lines(&self) -> Vec<String> {
        let names: Vec<String> = self.header.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = std::iter::once(&names).chain(&self.rows);
                cells.map(|row| row[column].chars().count()).max().unwrap_or_default()
            })
            .collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).zip(self.header).map(|((cell, &width), name)| {
                if name.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        std::iter::once(&names).chain(&self.rows).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["NAME", ">COUNT", "REST"]);
        table.push(vec!["größe".into(), "1".into(), "x".into()]);
        table.push(vec!["a".into(), "100000".into(), String::new()]);
        assert_eq!(table.lines(), ["NAME    COUNT  REST", "größe       1  x", "a      100000"]);
    }
}
