//! How long the files are, a report, and a reason for what is very long; and how long the lines of comments.

use crate::files;

/// Past this many lines a file needs a reason.
const LINES: usize = 1_000;

/// Past this many characters a line of a comment is broken, which the formatter does for code alone. Rows of tables are not.
const CHARACTERS: usize = 132;

/// Files that may be longer, with the reason.
const LONGER: [(&str, &str); 0] = [];

#[test]
fn files_fit_the_head() {
    let mut sizes: Vec<(usize, String)> = files::with_extension("rs")
        .into_iter()
        .map(|path| (files::read(&path).lines().count(), path.display().to_string()))
        .collect();
    sizes.sort();
    let at = |part: usize| sizes[(sizes.len() - 1) * part / 100].0;
    println!("{} Rust files: median {} lines, 90th percentile {}; the longest:", sizes.len(), at(50), at(90));
    for (lines, path) in sizes.iter().rev().take(5) {
        println!("{lines:>6} {path}");
    }
    let reasoned = |path: &str| LONGER.iter().any(|(longer, _)| *longer == path);
    let faults: Vec<String> = sizes
        .iter()
        .filter(|(lines, path)| *lines > LINES && !reasoned(path))
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    files::assert_none("longer than 1,000 lines without a reason", &faults);
}

#[test]
fn comments_fit_the_screen() {
    let is_long = |line: &str| {
        let comment = line.trim_start().trim_start_matches(['/', '!']);
        line.trim_start().starts_with("//")
            && !comment.trim_start().starts_with('|')
            && line.chars().count() > CHARACTERS
    };
    assert!(is_long(&format!("    // {}", "long ".repeat(30))) && !is_long(&format!("//! | {}", "long ".repeat(30))));
    let faults: Vec<String> = files::with_extension("rs")
        .into_iter()
        .flat_map(|path| {
            let text = files::read(&path);
            let long = text.lines().zip(1..).filter(|(line, _)| is_long(line));
            long.map(|(_, number)| format!("{}:{number}", path.display())).collect::<Vec<_>>()
        })
        .collect();
    files::assert_none("comments with lines longer than 132 characters", &faults);
}
