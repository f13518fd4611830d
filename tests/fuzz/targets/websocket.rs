//! A message of a WebSocket: taken as an event, or refused with a reason that can be told. The first byte says which
//! subprotocol was agreed on and in which kind of frame the message came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::check_event;
use tidegate_schemas::websocket::{self, Frame, Refusal};
use tidegate_schemas::{Format, Limits};

fuzz_target!(|input: &[u8]| {
    let Some((choice, message)) = input.split_first() else { return };
    let format = Format::ALL[usize::from(choice >> 1 & 1)];
    let kind = if choice & 1 == 0 { Frame::Text } else { Frame::Binary };
    let read = websocket::read(format, kind, bytes::Bytes::copy_from_slice(message), &Limits::default());
    let fits = kind == websocket::frame(format);
    assert_eq!(matches!(read, Err(Refusal::Frame(_))), !fits, "the kind of frame is not what decides");
    match read {
        Ok(event) => {
            check_event(&event);
            let again = websocket::read(
                format,
                kind,
                format.write(&event),
                &Limits {
                    event_bytes: usize::MAX,
                    event_attributes_bytes: usize::MAX,
                    event_attributes: usize::MAX,
                    ..Limits::default()
                },
            );
            assert!(again.is_ok(), "what is sent back is not taken: {again:?}");
        }
        Err(refusal) => {
            let text = refusal.to_string();
            // What is told must not grow with what was sent: each fault is bounded, and so is their number.
            assert!(!text.is_empty() && text.len() < 100_000, "{} bytes of reasons", text.len());
        }
    }
    let offers = String::from_utf8_lossy(message);
    if let Some(format) = websocket::negotiate([&*offers]) {
        assert!(offers.contains(websocket::subprotocol(format)));
    }
});
