//! A message of the HTTP binding, in any mode: what is read is written in forms that give the same event again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{check_event, message};
use tidegate_schemas::{Limits, http};

fuzz_target!(|input: &[u8]| {
    let (headers, body) = message(input);
    match http::read(&headers, body, &Limits::default()) {
        Ok(http::Message::Event(event)) => check_event(&event),
        Ok(http::Message::Batch(events)) => events.iter().for_each(check_event),
        Ok(http::Message::None) | Err(_) => {}
    }
});
