//! Server-sent events: however a stream is cut, it has the same messages, and no message is longer than is allowed. The
//! first byte says how it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_schemas::sse::{Message, Parser};

const LIMIT_BYTES: usize = 4_096;

type Read = (Vec<Message>, Option<String>, bool);

fn read(stream: &[u8], size: usize) -> Read {
    let mut parser = Parser::new(LIMIT_BYTES);
    let mut messages = Vec::new();
    for mut piece in stream.chunks(size) {
        while !piece.is_empty() {
            let Ok((taken, message)) = parser.feed(piece) else {
                return (messages, parser.last_id().map(str::to_owned), true);
            };
            assert!(taken > 0 && taken <= piece.len(), "{taken} of {} bytes were taken", piece.len());
            messages.extend(message);
            piece = &piece[taken..];
        }
    }
    (messages, parser.last_id().map(str::to_owned), false)
}

fuzz_target!(|input: &[u8]| {
    let Some((size, stream)) = input.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    assert_eq!(whole, read(stream, usize::from(*size).max(1)), "cut otherwise it is read otherwise");
    for message in &whole.0 {
        // Bytes that are no UTF-8 become a character of three bytes each.
        assert!(
            message.data.len() + message.kind.len() <= 6 * LIMIT_BYTES,
            "a message has {} bytes",
            message.data.len()
        );
        assert!(!message.kind.contains(['\n', '\r']) && !message.data.contains('\r'));
    }
    // What was read, written again, is read as the same.
    let mut again = Vec::new();
    for message in &whole.0 {
        again.extend_from_slice(format!("event: {}\n", message.kind).as_bytes());
        for line in message.data.split('\n') {
            again.extend_from_slice(format!("data: {line}\n").as_bytes());
        }
        again.push(b'\n');
    }
    let mut parser = Parser::new(usize::MAX);
    let mut rest = &again[..];
    for expected in &whole.0 {
        let (taken, message) = parser.feed(rest).expect("there is no limit");
        assert_eq!(message.as_ref(), Some(expected));
        rest = &rest[taken..];
    }
});
