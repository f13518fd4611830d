//! Words that the project does without; words.txt gives each its reason.

use crate::files;

const LIST: &str = "tests/tidy/words.txt";
/// The list and this file, which have to name the words.
const ABOUT_WORDS: &str = "tests/tidy/words.";
/// Texts that are not the project's own: the licence, and what cargo writes.
const NOT_OURS: [&str; 3] = ["LICENSE", "Cargo.lock", "tests/fuzz/Cargo.lock"];

#[test]
fn no_file_uses_a_word_that_we_do_without() {
    let list = files::read(LIST);
    let words: Vec<(&str, &str)> =
        list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" | ")).collect();
    assert!(words.len() > 5, "the list was not understood: {words:?}");
    let mut faults = Vec::new();
    for path in files::all() {
        let name = path.display().to_string();
        if name.starts_with(ABOUT_WORDS) || NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        // What is no text, such as a golden file of bytes, has no words.
        let Ok(text) = std::fs::read_to_string(tidegate_tests::workspace_root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let found = words.iter().filter(|(word, _)| contains_word(&lower, word));
            faults.extend(found.map(|(word, reason)| format!("{name}:{}: `{word}`: {reason}", number + 1)));
        }
    }
    files::assert_none("words", &faults);
}

/// Whether a line holds the word with no letter on either side.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

#[test]
fn words_are_found_whole() {
    assert!(contains_word("// todo: this", "todo:"));
    assert!(contains_word("a helper, or two", "helper"));
    assert!(!contains_word("two helpers", "helper"));
}
