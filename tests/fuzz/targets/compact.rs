//! The stored form of an event: any bytes are either refused, or the one encoding of an event that can be delivered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::{check_binary, stored};
use tidegate_schemas::compact;

fuzz_target!(|input: &[u8]| {
    if let Ok(event) = compact::decode(bytes::Bytes::copy_from_slice(input)) {
        assert_eq!(stored(&event), input, "an event has one encoding");
        // Neither JSON nor headers keep all that this form keeps (the kinds of extensions), but both can say it.
        check_binary(&event);
    }
});
