//! What `strace -f -yy` saw: which bytes were written to which file, when it was synced, and when an answer left.

use std::collections::HashMap;

/// One system call, with the lines between which it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// What stands behind its file descriptor: a path, or `TCP:[…]`.
    pub target: String,
    /// The rest of its arguments, as strace prints them.
    pub arguments: String,
    /// What it returned; none where it did not return a number.
    pub result: Option<i64>,
    /// The line at which it began.
    pub began: usize,
    /// The line at which it returned.
    pub ended: usize,
}

/// Reads the output of `strace -f -yy -o FILE`. Calls that never returned are left out.
pub fn parse(text: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<(&str, &str), (usize, &str)> = HashMap::new();
    for (line_number, line) in text.lines().enumerate() {
        let Some((process, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(head) = rest.strip_suffix("<unfinished ...>") {
            if let Some((name, _)) = head.split_once('(') {
                unfinished.insert((process, name), (line_number, head));
            }
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((name, tail)) = resumed.split_once(" resumed>") else { continue };
            if let Some((began, head)) = unfinished.remove(&(process, name)) {
                calls.extend(call(&format!("{head}{tail}"), began, line_number));
            }
        } else {
            calls.extend(call(rest, line_number, line_number));
        }
    }
    calls
}

/// `name(7</path>, arguments) = result`.
fn call(text: &str, began: usize, ended: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (inside, result) = rest.rsplit_once(") ")?;
    let result = result.trim_start().strip_prefix('=')?;
    let result = result.split_whitespace().next().and_then(|number| number.parse().ok());
    let (target, arguments) = descriptor(inside)?;
    Some(Call { name: name.to_owned(), target, arguments: arguments.to_owned(), result, began, ended })
}

/// Splits `7</path>, rest` after the descriptor; a socket's `<TCP:[a->b]>` holds a `>` of its own.
fn descriptor(inside: &str) -> Option<(String, &str)> {
    let start = inside.find('<')? + 1;
    let inner = &inside[start..];
    let end = if inner.starts_with("TCP") || inner.starts_with("UNIX") {
        inner.find("]>").map(|at| at + 1)?
    } else {
        inner.find('>')?
    };
    Some((inner[..end].to_owned(), inner[end + 1..].trim_start_matches(", ")))
}

/// Why a published event was not proven durable before its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No answer with its id was sent.
    NoAnswer,
    /// No write of its id to a file came before its answer.
    NoWrite,
    /// No sync of that file began after the write and returned 0 before its answer.
    NoSync,
}

/// Checks that the event whose id contains `marker` was written to a file below `data`, that the file was then synced,
/// and that only then an answer with the marker went out.
pub fn durable_before_answer(calls: &[Call], data: &str, marker: &str) -> Result<(), Fault> {
    let answer = calls.iter().find(|call| is_send(call) && call.arguments.contains(marker)).ok_or(Fault::NoAnswer)?;
    let mut writes = calls
        .iter()
        .filter(|call| call.target.starts_with(data) && is_write(call) && call.arguments.contains(marker))
        .filter(|call| call.ended < answer.began && call.result.is_some_and(|count| count > 0))
        .peekable();
    writes.peek().ok_or(Fault::NoWrite)?;
    let synced = writes.any(|write| {
        calls.iter().any(|call| {
            matches!(call.name.as_str(), "fdatasync" | "fsync")
                && call.result == Some(0)
                && call.target == write.target
                && call.began > write.ended
                && call.ended < answer.began
        })
    });
    if synced { Ok(()) } else { Err(Fault::NoSync) }
}

fn is_write(call: &Call) -> bool {
    matches!(call.name.as_str(), "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2")
}

fn is_send(call: &Call) -> bool {
    call.target.starts_with("TCP") && matches!(call.name.as_str(), "write" | "writev" | "sendto" | "sendmsg")
}

#[cfg(test)]
mod tests {
    use super::{Fault, durable_before_answer, parse};

    const WRITE: &str = r#"11 pwrite64(7</data/0001.log>, "..e-17..", 90, 4096) = 90"#;
    const SYNC: &str = "11 fdatasync(7</data/0001.log>)      = 0";
    const SEND: &str =
        r#"10 sendto(12<TCP:[127.0.0.1:3500->127.0.0.1:4]>, "HTTP/1.1 202 ..e-17..", 80, MSG_NOSIGNAL, NULL, 0) = 80"#;

    #[track_caller]
    fn check(lines: &[&str], expected: Result<(), Fault>) {
        assert_eq!(durable_before_answer(&parse(&lines.join("\n")), "/data", "e-17"), expected);
    }

    #[test]
    fn the_order_is_judged() {
        check(&[WRITE, SYNC, SEND], Ok(()));
        check(&[WRITE, SEND, SYNC], Err(Fault::NoSync));
        check(&[SYNC, WRITE, SEND], Err(Fault::NoSync));
        check(&[SEND, WRITE, SYNC], Err(Fault::NoWrite));
        check(&[WRITE, SYNC], Err(Fault::NoAnswer));
        check(&[WRITE, "11 fdatasync(7</data/0001.log>) = -1 EIO (Input/output error)", SEND], Err(Fault::NoSync));
        check(&[WRITE, "11 fdatasync(8</data/0002.log>) = 0", SEND], Err(Fault::NoSync));
        check(&[&WRITE.replace("/data", "/elsewhere"), SYNC, SEND], Err(Fault::NoWrite));
    }

    #[test]
    fn calls_that_overlap_are_joined() {
        let begun = "11 fdatasync(7</data/0001.log> <unfinished ...>";
        let resumed = "11 <... fdatasync resumed>)       = 0";
        check(&[WRITE, begun, "12 write(3<anon_inode:[eventfd]>, \"x\", 8) = 8", resumed, SEND], Ok(()));
        check(&[WRITE, begun, SEND, resumed], Err(Fault::NoSync));
        check(&[begun, WRITE, resumed, SEND], Err(Fault::NoSync));
    }
}
