#![doc = include_str!("../../docs/compact.md")]

mod decode;
mod encode;
mod varint;

pub use decode::{DecodeError, decode};
pub use encode::{encode, encoded_len};

const VERSION: u8 = 1;

const HAS_SUBJECT: u8 = 1;
const HAS_TIME: u8 = 1 << 1;
const HAS_DATA_CONTENT_TYPE: u8 = 1 << 2;
const HAS_DATA_SCHEMA: u8 = 1 << 3;
const DATA_KIND_SHIFT: u8 = 4;
const UNKNOWN_FLAGS: u8 = 0b1100_0000;

const DATA_NONE: u8 = 0;
const DATA_JSON: u8 = 1;
const DATA_TEXT: u8 = 2;
const DATA_BINARY: u8 = 3;

const VALUE_FALSE: u8 = 0;
const VALUE_TRUE: u8 = 1;
const VALUE_INTEGER: u8 = 2;
const VALUE_STRING: u8 = 3;
const VALUE_BINARY: u8 = 4;
const VALUE_URI: u8 = 5;
const VALUE_URI_REFERENCE: u8 = 6;
const VALUE_TIMESTAMP: u8 = 7;
