//! What a machine can check of the house rules: who imports whom, what documents say, how large files are.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test beside the product, not inside it"
)]

mod compose;
mod dependencies;
mod documents;
mod files;
mod imports;
mod limits;
mod markdown;
mod sizes;
mod words;
