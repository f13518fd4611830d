//! A batch in the JSON format: within its limits, and each of its events the same in every other form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::check_event;
use tidegate_schemas::{Limits, json};

fuzz_target!(|input: &[u8]| {
    let limits = Limits::default();
    if let Ok(events) = json::read_batch(bytes::Bytes::copy_from_slice(input), &limits) {
        assert!(events.len() <= limits.batch_events, "a batch of {} events was let through", events.len());
        events.iter().for_each(check_event);
        let mut written = Vec::new();
        json::write_batch(&events, &mut written);
        let unlimited = Limits { event_bytes: usize::MAX, event_attributes_bytes: usize::MAX, ..limits };
        let again = json::read_batch(bytes::Bytes::from(written), &unlimited);
        assert_eq!(again.as_deref().ok(), Some(events.as_slice()), "changed by the batch format");
    }
});
