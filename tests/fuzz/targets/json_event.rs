//! An event in the JSON format: read within its limits, the same in every other form, the same as a batch of one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::check_event;
use tidegate_schemas::{Limits, json};

fuzz_target!(|input: &[u8]| {
    let limits = Limits::default();
    let document = bytes::Bytes::copy_from_slice(input);
    let event = json::read(document.clone(), &limits);
    if let Ok(event) = &event {
        assert!(event.bytes() <= limits.event_bytes, "an event of {} bytes was let through", event.bytes());
        assert!(event.attributes_bytes() <= limits.event_attributes_bytes);
        check_event(event);
    }
    // The same text in brackets is a batch with the same verdict. A byte order mark may only stand at the very start.
    if !input.starts_with("\u{feff}".as_bytes()) {
        let batch = [b"[".as_slice(), input, b"]"].concat();
        let batch = json::read_batch(bytes::Bytes::from(batch), &limits);
        match (&event, &batch) {
            (Ok(event), Ok(events)) => assert_eq!(events.as_slice(), std::slice::from_ref(event)),
            (Ok(event), Err(error)) => panic!("refused in a batch: {error}\n{event:?}"),
            // Nothing, or several separated by commas, is a batch and no event.
            (Err(error), Ok(events)) => assert_ne!(events.len(), 1, "let through in a batch: {error}"),
            (Err(_), Err(_)) => {}
        }
    }
});
