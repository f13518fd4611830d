//! How long the files are: a report, and a reason for what is very long.

use crate::files;

/// Past this many lines a file needs a reason.
const LINES: usize = 1_000;

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
