use bytes::Bytes;

use super::{ReadBatchError, ReadError, read};
use crate::batch::{Collector, Problem};
use crate::event::Event;
use crate::limits::Limits;

/// Reads newline-delimited JSON (`application/x-ndjson`): one event a line, lines of nothing but blanks left out. It is
/// taken or refused as a whole, as a batch is; a line that is not JSON is a fault of that one event. The events share the
/// document's buffer.
pub fn read_lines(document: Bytes, limits: &Limits) -> Result<Vec<Event>, ReadBatchError> {
    let mut collector = Collector::new(limits);
    let mut rest = document;
    let mut number = 0;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = rest.split_to(end.map_or(rest.len(), |end| end + 1));
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let outcome = read(line, limits).map_err(|error| match error {
            ReadError::Malformed(malformed) => {
                Problem::whole(format!("line {number}, byte {}: {}", malformed.column, malformed.reason))
            }
            ReadError::Invalid(faults) => Problem::Invalid(faults),
            ReadError::TooLarge(too_large) => Problem::TooLarge(too_large),
        });
        collector.take(outcome)?;
    }
    Ok(collector.finish()?)
}
