//! The names of this broker: of files, and of logs inside them (FORMAT.md, Files and Frame).

use bytestring::ByteString;
use tidegate_backbone::LogId;

/// The folder of the segments.
pub(crate) const SEGMENTS: &str = "segments";
/// The lock.
pub(crate) const LOCK: &str = "LOCK";
/// The manifest, and what it is called while it is written.
pub(crate) const MANIFEST: &str = "FORMAT";
pub(crate) const MANIFEST_NEW: &str = "FORMAT.new";

/// The path of a segment.
pub(crate) fn segment(number: u64) -> String {
    format!("{SEGMENTS}/{number:016}.seg")
}

/// The path of a segment's index.
pub(crate) fn index(number: u64) -> String {
    format!("{SEGMENTS}/{number:016}.idx")
}

/// The number of the file with that name and ending, where it is one of ours.
pub(crate) fn number(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?;
    (digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The stored identity of a log.
pub(crate) fn encode(id: &LogId, into: &mut Vec<u8>) {
    match id {
        LogId::Topic { topic, partition } => {
            into.push(1);
            into.extend_from_slice(&partition.to_le_bytes());
            into.extend_from_slice(topic.as_bytes());
        }
        LogId::Slot { slot, epoch, suffix } => {
            into.push(2);
            into.extend_from_slice(&slot.to_le_bytes());
            into.extend_from_slice(&epoch.to_le_bytes());
            into.extend_from_slice(&suffix.to_le_bytes());
        }
        LogId::Outcomes { slot } => {
            into.push(3);
            into.extend_from_slice(&slot.to_le_bytes());
        }
    }
}

/// The log that the stored identity names, where it is a valid one.
pub(crate) fn decode(bytes: &[u8]) -> Option<LogId> {
    let (&tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first_chunk::<4>()?;
    let first = u32::from_le_bytes(*first);
    match tag {
        1 => Some(LogId::Topic { topic: ByteString::from(std::str::from_utf8(rest).ok()?), partition: first }),
        2 => {
            let (epoch, rest) = rest.split_first_chunk::<8>()?;
            let suffix: &[u8; 8] = rest.try_into().ok()?;
            Some(LogId::Slot { slot: first, epoch: u64::from_le_bytes(*epoch), suffix: u64::from_le_bytes(*suffix) })
        }
        3 if rest.is_empty() => Some(LogId::Outcomes { slot: first }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_being_stored() {
        let ids = [
            LogId::Topic { topic: "orders.placed".into(), partition: 7 },
            LogId::Slot { slot: 3, epoch: u64::MAX, suffix: 9 },
            LogId::Outcomes { slot: 15 },
        ];
        for id in ids {
            let mut bytes = Vec::new();
            encode(&id, &mut bytes);
            assert_eq!(decode(&bytes), Some(id));
        }
        for bad in
            [&[][..], &[1, 0, 0], &[2, 0, 0, 0, 0, 1], &[3, 0, 0, 0, 0, 1], &[9, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 255]]
        {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_our_own_file_names_have_numbers() {
        assert_eq!(number("0000000000000042.seg", ".seg"), Some(42));
        for bad in ["42.seg", "0000000000000042.idx", "000000000000004x.seg", "+000000000000042.seg"] {
            assert_eq!(number(bad, ".seg"), None, "{bad}");
        }
    }
}
