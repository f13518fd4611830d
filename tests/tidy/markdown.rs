//! The tables in documents that tests read.

/// The rows of the table below a marker line `<!-- table: NAME -->`, cells without backquotes.
///
/// # Panics
///
/// Where the document has no such table, or it is empty.
pub(crate) fn table(document: &str, name: &str) -> Vec<Vec<String>> {
    let marker = format!("<!-- table: {name} -->");
    let (_, rest) = document.split_once(&marker).unwrap_or_else(|| panic!("there is no `{marker}`"));
    let lines = rest.lines().skip_while(|line| line.trim().is_empty()).take_while(|line| line.starts_with('|'));
    // The first two lines are the heading and its rule.
    let rows: Vec<Vec<String>> = lines.skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "the table behind `{marker}` is empty");
    rows
}

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()
}

/// A cell that lists names: `a, b` or a dash for none.
pub(crate) fn names(cell: &str) -> Vec<String> {
    if cell == "-" {
        return Vec::new();
    }
    cell.split(',').map(|name| name.trim().to_owned()).collect()
}

#[test]
fn tables_are_read() {
    let document = "text\n<!-- table: x -->\n\n| a | b |\n|---|---|\n| `1`, `2` | - |\n\n| no | more |\n";
    assert_eq!(table(document, "x"), [["1, 2", "-"]]);
    assert_eq!(names("1, 2"), ["1", "2"]);
    assert!(names("-").is_empty());
}
