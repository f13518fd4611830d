//! Durations and sizes as resource files and the command line write them: whole numbers with their units.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads a duration such as `500ms`, `15s`, `2m`, `7d` or `1h30m`. The error says what is wrong; behind a `; ` it says
/// how to mend it. Neither holds the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const MEND: &str = "write a whole number with ms, s, m, h or d behind it, for example `15s`";
    let mut rest = text;
    let mut milliseconds = 0_u64;
    let mut last_scale = u64::MAX;
    if rest.is_empty() {
        return Err(format!("is empty and must be a duration; {MEND}"));
    }
    while !rest.is_empty() {
        let (number, unit, behind) = part(rest).ok_or_else(|| format!("is not a duration; {MEND}"))?;
        if unit.is_empty() {
            return Err(format!("has no unit; {MEND}"));
        }
        let scale = scale_of(unit, &DURATION_UNITS).ok_or_else(|| format!("has an unknown unit; {MEND}"))?;
        if scale >= last_scale {
            return Err(format!("has its units out of order; {MEND}, or the larger unit first, as in `1h30m`"));
        }
        last_scale = scale;
        milliseconds = number
            .checked_mul(scale)
            .and_then(|product| milliseconds.checked_add(product))
            .ok_or_else(|| format!("is too long to count; {MEND}"))?;
        rest = behind;
    }
    Ok(Duration::from_millis(milliseconds))
}

/// Reads a size such as `512KiB`, `10GiB`, `5MB` or, in bytes, `4096`. The error is as that of [`parse_duration`].
pub fn parse_size(text: &str) -> Result<u64, String> {
    const MEND: &str =
        "write a whole number with B, KiB, MiB, GiB, TiB, kB, MB, GB or TB behind it, for example `10GiB`";
    match part(text) {
        Some((number, "", "")) => Ok(number),
        Some((number, unit, "")) => {
            let scale = scale_of(unit, &SIZE_UNITS).ok_or_else(|| format!("has an unknown unit; {MEND}"))?;
            number.checked_mul(scale).ok_or_else(|| format!("is too large to count; {MEND}"))
        }
        _ => Err(format!("is not a size; {MEND}")),
    }
}

/// A duration as [`parse_duration`] reads it, in as few units as are exact.
pub fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, scale)| milliseconds >= u128::from(*scale) && milliseconds.is_multiple_of(u128::from(*scale)))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(unit, scale)| format!("{}{unit}", milliseconds / u128::from(*scale)),
        )
}

/// A size as [`parse_size`] reads it, in the largest binary unit that is exact.
pub fn format_size(bytes: u64) -> String {
    SIZE_UNITS
        .iter()
        .rev()
        .find(|(unit, scale)| (unit.contains('i') || *scale == 1) && bytes >= *scale && bytes.is_multiple_of(*scale))
        .map_or_else(|| format!("{bytes}B"), |(unit, scale)| format!("{}{unit}", bytes / scale))
}

/// The number and the unit at the beginning of a text, and what follows them.
fn part(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let letters = rest.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, behind) = rest.split_at(letters);
    Some((number.parse().ok()?, unit, behind))
}

fn scale_of(unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("15s", 15_000),
            ("2m", 120_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for (text, what) in [
            ("", "is empty"),
            ("15", "has no unit"),
            ("15sec", "has an unknown unit"),
            ("15S", "has an unknown unit"),
            ("1.5s", "has no unit"),
            ("-1s", "is not a duration"),
            ("s", "is not a duration"),
            ("15 s", "has no unit"),
            ("1m1h", "has its units out of order"),
            ("1s1s", "has its units out of order"),
            ("99999999999999999999s", "is not a duration"),
            ("999999999999999999d", "is too long"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.starts_with(what), "{text:?}: {error}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("4096", 4_096), ("10GiB", 10 << 30), ("512KiB", 512 << 10), ("5MB", 5_000_000), ("7B", 7)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "10G", "10gib", "GiB", "1.5GiB", "-1", "10 GiB", "99999999TiB", "1GiB1B"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read(milliseconds in 0_u64..1_000_000_000_000, bytes in 0_u64..1 << 50) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
    }
}
