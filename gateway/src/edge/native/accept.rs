//! Which of several media types a client wants most (RFC 9110 section 12.5.1).

use tidegate_schemas::MediaType;

/// The index of the offer that the values of the `Accept` fields prefer; the first where there is no such field, and
/// nothing where none is accepted.
///
/// The highest weight wins, then the range that says most, then what the client names first. A range that is no media
/// type, or whose weight is none, is left out. Parameters other than `q` are not looked at.
pub(super) fn preferred<'a>(fields: impl IntoIterator<Item = &'a str>, offers: &[&str]) -> Option<usize> {
    let mut ranges = Vec::new();
    let mut asked = false;
    for field in fields {
        asked = true;
        ranges.extend(elements(field).enumerate().filter_map(|(place, text)| Range::parse(text, place)));
    }
    if !asked {
        return Some(0);
    }
    let judged = offers.iter().enumerate().filter_map(|(index, offer)| {
        let offer = MediaType::parse(offer)?;
        // The most specific range decides on an offer, so that `*/*, text/html;q=0` excludes the one.
        let range = ranges.iter().filter(|range| range.takes(&offer)).max_by_key(|range| range.precision)?;
        (range.thousandths > 0).then_some((range, index))
    });
    judged
        .max_by_key(|(range, index)| {
            (range.thousandths, range.precision, std::cmp::Reverse(range.place), std::cmp::Reverse(*index))
        })
        .map(|(_, index)| index)
}

#[derive(Debug)]
struct Range<'a> {
    media_type: MediaType<'a>,
    /// 0 for `*/*`, 1 for `type/*`, 2 for both named.
    precision: u8,
    thousandths: u16,
    place: usize,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str, place: usize) -> Option<Self> {
        let media_type = MediaType::parse(text.trim())?;
        let precision = match (media_type.kind(), media_type.subtype()) {
            ("*", "*") => 0,
            ("*", _) => return None,
            (_, "*") => 1,
            _ => 2,
        };
        let thousandths = media_type.parameter("q").map_or(Some(1_000), thousandths)?;
        Some(Self { media_type, precision, thousandths, place })
    }

    fn takes(&self, offer: &MediaType<'_>) -> bool {
        match self.precision {
            0 => true,
            1 => self.media_type.kind().eq_ignore_ascii_case(offer.kind()),
            _ => self.media_type.is(offer.kind(), offer.subtype()),
        }
    }
}

/// A weight: 0 to 1 with at most three digits behind the point.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let good = matches!(whole, "0" | "1") && fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let digits = if good { format!("{whole}{fraction:0<3}") } else { return None };
    digits.parse().ok().filter(|thousandths| *thousandths <= 1_000)
}

/// The elements of a list, which commas separate outside of quotes.
fn elements(field: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    field.split(move |character: char| {
        let separates = character == ',' && !quoted;
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        separates
    })
}

#[cfg(test)]
mod tests {
    use super::preferred;

    const OFFERS: [&str; 4] = ["application/json", "application/protobuf", "application/x-ndjson", "text/event-stream"];

    fn check(fields: &[&str], expected: Option<&str>) {
        let found = preferred(fields.iter().copied(), &OFFERS).map(|index| OFFERS[index]);
        assert_eq!(found, expected, "{fields:?}");
    }

    #[test]
    fn the_highest_weight_wins_then_precision_then_order() {
        check(&[], Some("application/json"));
        check(&["*/*"], Some("application/json"));
        check(&["application/*"], Some("application/json"));
        check(&["text/*"], Some("text/event-stream"));
        check(&["text/event-stream, */*"], Some("text/event-stream"));
        check(&["*/*", "application/x-ndjson"], Some("application/x-ndjson"));
        check(&["application/x-ndjson, application/protobuf"], Some("application/x-ndjson"));
        check(&["application/json;q=0.5, application/protobuf;q=0.8"], Some("application/protobuf"));
        check(&["application/json;q=0.5", "application/protobuf ; Q=0.501"], Some("application/protobuf"));
        check(&["*/*, application/json;q=0"], Some("application/protobuf"));
        check(&["application/*;q=0.2, text/event-stream;q=0.1"], Some("application/json"));
        check(&["APPLICATION/X-NDJSON; a=\"b,c\"; q=1.000"], Some("application/x-ndjson"));
        check(&["image/png"], None);
        check(&["*/*;q=0"], None);
        check(&["application/json;q=0.000, application/json;q=0"], None);
        check(&["nonsense, application/json;q=2, application/json;q=0.1234, application/json;q=x"], None);
        check(&[""], None);
    }
}
