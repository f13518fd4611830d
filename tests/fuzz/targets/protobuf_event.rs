//! An event, or a batch, in the Protobuf format: within its limits, and the same in every other form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::check_event;
use tidegate_schemas::{Limits, protobuf};

fuzz_target!(|input: &[u8]| {
    let limits = Limits::default();
    let document = bytes::Bytes::copy_from_slice(input);
    let event = protobuf::read(document.clone(), &limits);
    if let Ok(event) = &event {
        assert!(event.bytes() <= limits.event_bytes, "an event of {} bytes was let through", event.bytes());
        assert!(event.attributes_count() <= limits.event_attributes);
        check_event(event);
    }
    if let Ok(events) = protobuf::read_batch(document, &limits) {
        assert!(events.len() <= limits.batch_events, "a batch of {} events was let through", events.len());
        events.iter().for_each(check_event);
    }
    // As the only event of a batch it has the same verdict.
    let mut batch = vec![0x0a];
    let mut length = input.len();
    while length >= 0x80 {
        batch.push(length as u8 | 0x80);
        length >>= 7;
    }
    batch.push(length as u8);
    batch.extend_from_slice(input);
    let batch = protobuf::read_batch(bytes::Bytes::from(batch), &limits);
    match (&event, &batch) {
        (Ok(event), Ok(events)) => assert_eq!(events.as_slice(), std::slice::from_ref(event)),
        (Err(_), Err(_)) => {}
        (event, batch) => panic!("alone {event:?}, in a batch {batch:?}"),
    }
});
