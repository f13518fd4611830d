use bytestring::ByteString;

/// A point in time that keeps the text it was written with: offset, precision and letter case survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    text: ByteString,
    nanoseconds: i128,
}

impl Timestamp {
    /// Reads an RFC 3339 timestamp (section 5.6) and nothing more lenient; the error says what is wrong.
    ///
    /// The separator `T` and the offset `Z` may be small letters, as the RFC allows; a blank is no separator. Digits of
    /// the fraction beyond the ninth are kept in the text and left out of the instant. A leap second is taken where
    /// one can be (the end of a month, UTC), and its instant is that of the second after it, as POSIX counts.
    pub fn parse(text: impl Into<ByteString>) -> Result<Self, String> {
        let text = text.into();
        match nanoseconds(text.as_bytes()) {
            Ok(nanoseconds) => Ok(Self { text, nanoseconds }),
            Err(reason) => Err(format!("is not an RFC 3339 timestamp: {reason}; write it as 2026-01-31T12:00:00Z")),
        }
    }

    /// The timestamp of an instant, written in UTC with as many digits of the fraction as it needs; nothing where the
    /// instant lies outside of the years 1 to 9999, or has a second or more of nanoseconds.
    pub(crate) fn from_unix(seconds: i64, nanoseconds: u32) -> Option<Self> {
        if !INSTANTS.contains(&seconds) || nanoseconds >= SECOND_NANOSECONDS as u32 {
            return None;
        }
        let (year, month, day) = date(seconds.div_euclid(DAY_SECONDS));
        let second = seconds.rem_euclid(DAY_SECONDS);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if nanoseconds > 0 {
            let digits = format!(".{nanoseconds:09}");
            text.push_str(digits.trim_end_matches('0'));
        }
        text.push('Z');
        let nanoseconds = i128::from(seconds) * SECOND_NANOSECONDS + i128::from(nanoseconds);
        Some(Self { text: text.into(), nanoseconds })
    }

    /// The instant as whole seconds since 1970-01-01T00:00:00Z and the nanoseconds behind them, where it lies in the years
    /// 1 to 9999 (UTC).
    pub(crate) fn unix_seconds_and_nanoseconds(&self) -> Option<(i64, u32)> {
        let seconds = i64::try_from(self.nanoseconds.div_euclid(SECOND_NANOSECONDS)).ok()?;
        let nanoseconds = u32::try_from(self.nanoseconds.rem_euclid(SECOND_NANOSECONDS)).ok()?;
        INSTANTS.contains(&seconds).then_some((seconds, nanoseconds))
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text as it was written, shared.
    pub fn text(&self) -> &ByteString {
        &self.text
    }

    /// The instant, in nanoseconds since 1970-01-01T00:00:00Z.
    pub fn unix_nanoseconds(&self) -> i128 {
        self.nanoseconds
    }
}

const DAY_SECONDS: i64 = 24 * 60 * 60;
const SECOND_NANOSECONDS: i128 = 1_000_000_000;
/// The seconds of the years 1 to 9999.
const INSTANTS: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;

fn nanoseconds(text: &[u8]) -> Result<i128, &'static str> {
    let mut reader = Reader { rest: text };
    let year = reader.digits(4, 9999).ok_or("it does not begin with a year of four digits")?;
    reader.expect(b"-").ok_or("no '-' stands after the year")?;
    let month = reader.digits(2, 12).filter(|month| *month > 0).ok_or("the month is not 01 to 12")?;
    reader.expect(b"-").ok_or("no '-' stands after the month")?;
    let day = reader.digits(2, days_of_month(year, month)).filter(|day| *day > 0).ok_or("the month has no such day")?;
    reader.expect(b"Tt").ok_or("no 'T' stands between date and time")?;
    let hour = reader.digits(2, 23).ok_or("the hour is not 00 to 23")?;
    reader.expect(b":").ok_or("no ':' stands after the hour")?;
    let minute = reader.digits(2, 59).ok_or("the minute is not 00 to 59")?;
    reader.expect(b":").ok_or("no ':' and seconds stand after the minute")?;
    let second = reader.digits(2, 60).ok_or("the second is not 00 to 60")?;
    let fraction =
        if reader.expect(b".").is_some() { reader.fraction().ok_or("no digit follows the '.'")? } else { 0 };
    let offset_minutes = reader.offset()?;
    if !reader.rest.is_empty() {
        return Err("something follows the offset");
    }
    let seconds = days_from_epoch(year, month, day) * DAY_SECONDS + (hour * 60 + minute - offset_minutes) * 60 + second;
    if second == 60 && !begins_month(seconds) {
        return Err("no leap second can be there");
    }
    Ok(i128::from(seconds) * 1_000_000_000 + i128::from(fraction))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn expect(&mut self, one_of: &[u8]) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        if !one_of.contains(first) {
            return None;
        }
        self.rest = rest;
        Some(*first)
    }

    fn digits(&mut self, count: usize, max: i64) -> Option<i64> {
        let (digits, rest) = self.rest.split_at_checked(count)?;
        let mut number = 0;
        for digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            number = number * 10 + i64::from(digit - b'0');
        }
        self.rest = rest;
        (number <= max).then_some(number)
    }

    /// The digits after the point as nanoseconds.
    fn fraction(&mut self) -> Option<i64> {
        let length = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(length);
        self.rest = rest;
        let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(9);
        (length > 0).then(|| padded.fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    fn offset(&mut self) -> Result<i64, &'static str> {
        let sign = match self.expect(b"Zz+-").ok_or("it has no offset from UTC")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Ok(0),
        };
        let hours = self.digits(2, 23).ok_or("the hours of the offset are not 00 to 23")?;
        self.expect(b":").ok_or("the offset has no ':' and minutes")?;
        let minutes = self.digits(2, 59).ok_or("the minutes of the offset are not 00 to 59")?;
        Ok(sign * (hours * 60 + minutes))
    }
}

fn is_leap_year(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap_year(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_BEFORE_MONTH: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    const DAYS_TO_1970: i64 = 719_528;
    // Years begin at 0000, which is a leap year, so that every leap day of the years before counts.
    let leap_days = (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    let before_month = DAYS_BEFORE_MONTH[(month - 1) as usize] + i64::from(month > 2 && is_leap_year(year));
    year * 365 + leap_days + before_month + day - 1 - DAYS_TO_1970
}

/// The date of a day, counted from 1970-01-01, in the years 1 to 9999.
fn date(days: i64) -> (i64, i64, i64) {
    // A year of 365.2425 days on average gives the year or a neighbour of it.
    let about = 1970 + days * 400 / 146_097;
    let year = if days < days_from_epoch(about, 1, 1) {
        about - 1
    } else if days >= days_from_epoch(about + 1, 1, 1) {
        about + 1
    } else {
        about
    };
    let month = (1..=12).rev().find(|month| days >= days_from_epoch(year, *month, 1)).unwrap_or(1);
    (year, month, days - days_from_epoch(year, month, 1) + 1)
}

/// Whether an instant is the first midnight (UTC) of a month, which is where the instant after a leap second lies.
fn begins_month(unix_seconds: i64) -> bool {
    if unix_seconds.rem_euclid(DAY_SECONDS) != 0 {
        return false;
    }
    let days = unix_seconds.div_euclid(DAY_SECONDS);
    // A year of 365.2425 days on average gives the year or a neighbour of it.
    let about = 1970 + days * 400 / 146_097;
    (about - 1..=about + 1).any(|year| (1..=12).any(|month| days_from_epoch(year, month, 1) == days))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Timestamp;

    #[test]
    fn what_rfc_3339_allows() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00z", 0),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-12-31T23:59:59.5Z", -500_000_000),
            ("1970-01-01T00:00:00-00:00", 0),
            ("1970-01-01T00:00:00.1234567899999Z", 123_456_789),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
            ("2016-12-31T15:59:60.25-08:00", 1_483_228_800_250_000_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000_000_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
        ];
        for (text, nanoseconds) in cases {
            let time = Timestamp::parse(text).unwrap_or_else(|reason| panic!("{text} {reason}"));
            assert_eq!(time.unix_nanoseconds(), nanoseconds, "{text}");
            assert_eq!(time.as_str(), text);
        }
    }

    #[test]
    fn instants_have_bounds() {
        let text =
            |seconds, nanoseconds| Timestamp::from_unix(seconds, nanoseconds).map(|time| time.as_str().to_owned());
        assert_eq!(text(-62_135_596_800, 0).as_deref(), Some("0001-01-01T00:00:00Z"));
        assert_eq!(text(253_402_300_799, 999_999_999).as_deref(), Some("9999-12-31T23:59:59.999999999Z"));
        assert_eq!(text(-1, 500_000_000).as_deref(), Some("1969-12-31T23:59:59.5Z"));
        assert_eq!(text(951_782_400, 0).as_deref(), Some("2000-02-29T00:00:00Z"));
        for (seconds, nanoseconds) in [(-62_135_596_801, 0), (253_402_300_800, 0), (0, 1_000_000_000), (i64::MIN, 0)] {
            assert_eq!(text(seconds, nanoseconds), None, "{seconds} {nanoseconds}");
        }
        for outside in ["0000-12-31T23:59:59Z", "9999-12-31T23:59:59-00:01", "0001-01-01T00:00:00+00:01"] {
            assert_eq!(Timestamp::parse(outside).unwrap().unix_seconds_and_nanoseconds(), None, "{outside}");
        }
    }

    #[test]
    fn what_rfc_3339_refuses() {
        let cases = [
            "",
            "2018-04-05",
            "2018-04-05T17:31Z",
            "2018-04-05 17:31:00Z",
            "2018-04-05T17:31:00",
            "2018-04-05T18:31:00+25:00",
            "2018-04-05T18:31:00+05",
            "2018-04-05T18:31:00+0500",
            "2018-13-05T17:31:00Z",
            "2018-00-05T17:31:00Z",
            "2018-04-31T17:31:00Z",
            "2018-04-00T17:31:00Z",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2018-04-05T24:00:00Z",
            "2018-04-05T17:60:00Z",
            "2018-04-05T17:31:61Z",
            "2018-04-05T17:31:60Z",
            "2016-12-31T23:59:60+01:00",
            "2018-04-05T17:31:00.Z",
            "2018-04-05T17:31:00,5Z",
            "2018-04-05T17:31:00X",
            "2018-04-05T17:31:00Z ",
            " 2018-04-05T17:31:00Z",
            "18-04-05T17:31:00Z",
            "+002018-04-05T17:31:00Z",
            "2018-04-05T17:31:00Z[UTC]",
            "2018-04-05T17:31:00+01:60",
            "lunchtime",
            "20180405T173100Z",
            "2018-04-05T17:31:00\u{661}Z",
            "1522949460",
        ];
        for text in cases {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_another_parser(
            seconds in -62_167_219_200i64..253_402_300_800, nanoseconds in 0i32..1_000_000_000, offset in -1439i32..1440,
        ) {
            // Local times that leave the years 0000 to 9999 have no form in RFC 3339.
            prop_assume!((-62_167_132_800..253_402_214_400).contains(&seconds));
            let instant = jiff::Timestamp::new(seconds, nanoseconds).unwrap();
            let offset = jiff::tz::Offset::from_seconds(offset * 60).unwrap();
            let text = instant.display_with_offset(offset).to_string();
            let time = Timestamp::parse(text.clone()).map_err(TestCaseError::fail)?;
            prop_assert_eq!(time.unix_nanoseconds(), instant.as_nanosecond(), "{}", text);
        }

        #[test]
        fn an_instant_is_written_as_another_library_writes_it(
            seconds in -62_135_596_800i64..253_402_207_200, nanoseconds in 0u32..1_000_000_000, whole in any::<bool>(),
        ) {
            let nanoseconds = if whole { 0 } else { nanoseconds };
            let expected = jiff::Timestamp::new(seconds, nanoseconds as i32).unwrap();
            let time = Timestamp::from_unix(seconds, nanoseconds).unwrap();
            prop_assert_eq!(time.as_str(), expected.to_string());
            prop_assert_eq!(time.unix_seconds_and_nanoseconds(), Some((seconds, nanoseconds)));
            prop_assert_eq!(Timestamp::parse(time.text().clone()).unwrap(), time);
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = Timestamp::parse(text);
        }
    }
}
