//! Where each record of a segment stands: in memory for the segment that is written, in a file beside a sealed one
//! (FORMAT.md, Index).

use std::collections::BTreeMap;

use crate::log::frame::ALIGNMENT;
use crate::log::segment::Cursor;

const MAGIC: [u8; 4] = *b"TGIX";
const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
const RUN_BYTES: usize = 32;
const TABLE_CRC_AT: usize = 40;

/// Consecutive positions of one log, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexRun {
    pub(crate) first: u64,
    pub(crate) bytes: u64,
    // In units of the alignment: four bytes for each record.
    offsets: Vec<u32>,
}

impl IndexRun {
    pub(crate) fn end(&self) -> u64 {
        self.first + self.offsets.len() as u64
    }
}

/// A run as the table of an index tells it, without its offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) log: u32,
    pub(crate) first: u64,
    pub(crate) records: u32,
    pub(crate) bytes: u64,
}

/// The index of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    logs: BTreeMap<u32, Vec<IndexRun>>,
    records: usize,
    runs: usize,
}

/// What an index file is tied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tie {
    pub(crate) number: u64,
    pub(crate) last_lsn: u64,
    pub(crate) length: u64,
}

impl SegmentIndex {
    /// Adds the record that stands behind all those that were added.
    pub(crate) fn add(&mut self, log: u32, position: u64, offset: u64, frame_bytes: u64) {
        let unit = u32::try_from(offset / ALIGNMENT).expect("segments are bounded by the options");
        let runs = self.logs.entry(log).or_default();
        self.records += 1;
        match runs.iter_mut().rev().find(|run| run.end() == position) {
            Some(run) => {
                run.offsets.push(unit);
                run.bytes += frame_bytes;
            }
            None => {
                self.runs += 1;
                runs.push(IndexRun { first: position, bytes: frame_bytes, offsets: vec![unit] });
            }
        }
    }

    /// The offsets of the record at that position and of those behind it, at most `count`; empty where it is not there.
    pub(crate) fn offsets(&self, log: u32, position: u64, count: usize) -> Vec<u64> {
        // A position that is there twice was copied twice, and both are equal; the later is as good.
        let Some(run) = self
            .logs
            .get(&log)
            .and_then(|runs| runs.iter().rev().find(|run| (run.first..run.end()).contains(&position)))
        else {
            return Vec::new();
        };
        let from = usize::try_from(position - run.first).unwrap_or(usize::MAX);
        run.offsets[from..].iter().take(count).map(|&unit| u64::from(unit) * ALIGNMENT).collect()
    }

    pub(crate) fn summaries(&self) -> impl Iterator<Item = Summary> {
        self.logs.iter().flat_map(|(&log, runs)| {
            runs.iter().map(move |run| Summary {
                log,
                first: run.first,
                records: u32::try_from(run.offsets.len()).unwrap_or(u32::MAX),
                bytes: run.bytes,
            })
        })
    }

    /// About what it takes in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.records * 4 + self.runs * 64 + 256
    }

    pub(crate) fn encode(&self, tie: Tie) -> Vec<u8> {
        let mut table = Vec::with_capacity(self.runs * RUN_BYTES);
        let mut offsets = Vec::with_capacity(self.records * 4);
        for (summary, run) in self.summaries().zip(self.logs.values().flatten()) {
            table.extend_from_slice(&summary.log.to_le_bytes());
            table.extend_from_slice(&summary.records.to_le_bytes());
            table.extend_from_slice(&summary.first.to_le_bytes());
            table.extend_from_slice(&summary.bytes.to_le_bytes());
            table.extend_from_slice(&(offsets.len() as u64 / 4).to_le_bytes());
            offsets.extend(run.offsets.iter().flat_map(|unit| unit.to_le_bytes()));
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + table.len() + offsets.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&tie.number.to_le_bytes());
        bytes.extend_from_slice(&tie.last_lsn.to_le_bytes());
        bytes.extend_from_slice(&tie.length.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.runs).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.records).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&table).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&offsets).to_le_bytes());
        bytes.resize(HEADER_BYTES - 4, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.extend_from_slice(&table);
        bytes.extend_from_slice(&offsets);
        bytes
    }

    /// The index in those bytes; `None` where it is damaged, of another version, or tied to something else.
    pub(crate) fn decode(bytes: &[u8], tie: Tie) -> Option<Self> {
        let (runs, records, offsets_crc) = decode_header(bytes, tie)?;
        let summaries = decode_table(bytes, tie)?;
        let offsets = bytes.get(HEADER_BYTES + runs * RUN_BYTES..)?;
        if offsets.len() != records.checked_mul(4)? || crc32c::crc32c(offsets) != offsets_crc {
            return None;
        }
        let mut units = offsets.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
        let mut index = Self { logs: BTreeMap::new(), records, runs };
        for summary in summaries {
            let offsets: Vec<u32> = units.by_ref().take(summary.records as usize).collect();
            if offsets.len() != summary.records as usize {
                return None;
            }
            index.logs.entry(summary.log).or_default().push(IndexRun {
                first: summary.first,
                bytes: summary.bytes,
                offsets,
            });
        }
        units.next().is_none().then_some(index)
    }
}

fn decode_header(bytes: &[u8], tie: Tie) -> Option<(usize, usize, u32)> {
    let header = bytes.get(..HEADER_BYTES)?;
    let mut cursor = Cursor(header);
    let magic = cursor.take(4)?;
    let version = cursor.u32()?;
    let found = Tie { number: cursor.u64()?, last_lsn: cursor.u64()?, length: cursor.u64()? };
    let (runs, records) = (cursor.u32()?, cursor.u32()?);
    let (_, offsets_crc) = (cursor.u32()?, cursor.u32()?);
    let crc = u32::from_le_bytes(header[HEADER_BYTES - 4..].try_into().ok()?);
    let good =
        magic == MAGIC && version == VERSION && found == tie && crc == crc32c::crc32c(&header[..HEADER_BYTES - 4]);
    good.then_some((runs as usize, records as usize, offsets_crc))
}

/// How many bytes of an index file hold the header and the table, by its header.
pub(crate) fn table_bytes(header: &[u8], tie: Tie) -> Option<usize> {
    let (runs, _, _) = decode_header(header, tie)?;
    runs.checked_mul(RUN_BYTES)?.checked_add(HEADER_BYTES)
}

/// The runs in the table, which opening needs; the offsets are not looked at.
pub(crate) fn decode_table(bytes: &[u8], tie: Tie) -> Option<Vec<Summary>> {
    let end = table_bytes(bytes, tie)?;
    let table = bytes.get(HEADER_BYTES..end)?;
    let crc = Cursor(&bytes[TABLE_CRC_AT..]).u32()?;
    if crc32c::crc32c(table) != crc {
        return None;
    }
    table
        .chunks_exact(RUN_BYTES)
        .map(|run| {
            let mut cursor = Cursor(run);
            let (log, records) = (cursor.u32()?, cursor.u32()?);
            Some(Summary { log, records, first: cursor.u64()?, bytes: cursor.u64()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_back_and_every_flipped_bit_is_seen() {
        let tie = Tie { number: 3, last_lsn: 99, length: 4096 };
        let mut index = SegmentIndex::default();
        for (log, position, offset) in [(1, 10, 64), (2, 0, 128), (1, 11, 256), (1, 3, 320), (1, 12, 400), (1, 4, 480)]
        {
            index.add(log, position, offset, 64);
        }
        assert_eq!(index.offsets(1, 10, 9), [64, 256, 400]);
        assert_eq!(index.offsets(1, 11, 1), [256]);
        assert_eq!(index.offsets(1, 4, 9), [480]);
        assert_eq!(index.offsets(1, 5, 9), [] as [u64; 0]);
        let bytes = index.encode(tie);
        assert_eq!(SegmentIndex::decode(&bytes, tie), Some(index.clone()));
        assert_eq!(decode_table(&bytes, tie), Some(index.summaries().collect()));
        assert_eq!(SegmentIndex::decode(&bytes, Tie { last_lsn: 98, ..tie }), None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentIndex::decode(&flipped, tie), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(SegmentIndex::decode(&bytes[..length], tie), None, "length {length}");
        }
    }
}
