//! The one canonical form of a request path. Access rules look at it and the router dispatches by it, so the two cannot
//! disagree about what a path means.
//!
//! Each segment is percent-decoded once and encoded again in one way. What different readers could read differently is
//! refused: empty and dot segments (also when their dots are encoded), broken percent-encoding, text that is not UTF-8,
//! control characters, and an encoded `/`, except in a topic's segment, where it is read as `.`.

use std::fmt::Write as _;
use std::sync::Arc;

/// A place where a segment is a topic's name. `*` stands for any one segment, the last part is the topic.
const TOPIC_SEGMENTS: &[&[&str]] = &[&["topics", "{topic}"], &["v1.0", "publish", "*", "{topic}"]];

/// A path in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    text: Arc<str>,
    segments: Arc<[String]>,
}

impl Canonical {
    /// Reads the path of a request target. The error completes a sentence that begins with "The path".
    pub fn parse(path: &str) -> Result<Self, String> {
        let Some(rest) = path.strip_prefix('/') else {
            return Err("does not begin with a slash".to_owned());
        };
        let mut segments: Vec<String> = Vec::new();
        let count = rest.split('/').count();
        for (index, raw) in rest.split('/').enumerate() {
            // One slash at the end is kept: applications that are invoked tell `a` from `a/`.
            if raw.is_empty() && index + 1 == count {
                segments.push(String::new());
                break;
            }
            let mut segment = decode(raw)?;
            check(&segment)?;
            if segment.contains('/') {
                if !is_topic(&segments) {
                    return Err("has an encoded slash outside of a topic's name".to_owned());
                }
                segment = segment.replace('/', ".");
            }
            segments.push(segment);
        }
        let mut text = String::with_capacity(path.len());
        for segment in &segments {
            text.push('/');
            encode(segment, &mut text);
        }
        Ok(Self { text: text.into(), segments: segments.into() })
    }

    /// The path as it is dispatched: begins with `/`, percent-encoded in one way.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The decoded segments. The last one is empty where the path ends with a slash.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }
}

fn is_topic(before: &[String]) -> bool {
    TOPIC_SEGMENTS.iter().any(|place| {
        place.len() == before.len() + 1
            && place.iter().zip(before).all(|(expected, segment)| *expected == "*" || expected == segment)
    })
}

fn check(segment: &str) -> Result<(), String> {
    if segment.is_empty() {
        return Err("has an empty segment".to_owned());
    }
    // Also as a part of a segment, because a reader who decodes too late would see a dot segment there.
    if segment.split(['/', '\\']).any(|part| part == "." || part == "..") {
        return Err("has a dot segment".to_owned());
    }
    if segment.chars().any(char::is_control) {
        return Err("has a control character".to_owned());
    }
    Ok(())
}

fn decode(raw: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |digit: Option<u8>| digit.and_then(|digit| char::from(digit).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err("has a % without two hexadecimal digits".to_owned()),
        }
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 when it is decoded".to_owned())
}

/// Encodes all but what RFC 3986 3.3 lets stand in a segment.
fn encode(segment: &str, text: &mut String) {
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_have_one_form_or_are_refused() {
        let cases = [
            ("/", Ok("/")),
            ("/topics/orders.placed", Ok("/topics/orders.placed")),
            ("/topics/orders%2Fplaced", Ok("/topics/orders.placed")),
            ("/topics/orders%2fplaced/events", Ok("/topics/orders.placed/events")),
            ("/v1.0/publish/pubsub/a%2Fb", Ok("/v1.0/publish/pubsub/a.b")),
            ("/%74opics/a%2Fb", Ok("/topics/a.b")),
            ("/state/store/a%20b%7e%25", Ok("/state/store/a%20b~%25")),
            ("/state/store/%252e%252e", Ok("/state/store/%252e%252e")),
            ("/state/store/k||1", Ok("/state/store/k%7C%7C1")),
            ("/rpc/app/method/", Ok("/rpc/app/method/")),
            ("/state/store/gr\u{fc}n", Ok("/state/store/gr%C3%BCn")),
            ("", Err("does not begin with a slash")),
            ("topics", Err("does not begin with a slash")),
            ("//topics", Err("has an empty segment")),
            ("/topics//events", Err("has an empty segment")),
            ("/topics/a//", Err("has an empty segment")),
            ("/./topics", Err("has a dot segment")),
            ("/topics/../state", Err("has a dot segment")),
            ("/topics/%2e%2E/state", Err("has a dot segment")),
            ("/topics/a%2F..%2Fb", Err("has a dot segment")),
            ("/topics/..%5Cb", Err("has a dot segment")),
            ("/state/store/a%2Fb", Err("has an encoded slash outside of a topic's name")),
            ("/topics%2Fa", Err("has an encoded slash outside of a topic's name")),
            ("/topics/a/events%2Fb", Err("has an encoded slash outside of a topic's name")),
            ("/topics/%", Err("has a % without two hexadecimal digits")),
            ("/topics/%4", Err("has a % without two hexadecimal digits")),
            ("/topics/%+1", Err("has a % without two hexadecimal digits")),
            ("/topics/%c0%ae", Err("is not UTF-8 when it is decoded")),
            ("/topics/%00", Err("has a control character")),
            ("/topics/a%0d%0ab", Err("has a control character")),
        ];
        for (path, expected) in cases {
            let canonical = Canonical::parse(path);
            let canonical = canonical.as_ref().map(Canonical::as_str).map_err(String::as_str);
            assert_eq!(canonical, expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_form_is_final_and_decodes_to_the_same_segments(path in "(/([a-z.%/]|%2[EFef5]|%C3%BC){0,12}){1,4}") {
            if let Ok(canonical) = Canonical::parse(&path) {
                let again = Canonical::parse(canonical.as_str()).unwrap();
                prop_assert_eq!(&again, &canonical);
                for segment in canonical.segments() {
                    prop_assert!(!segment.contains('/') && segment != "." && segment != "..");
                }
            }
        }
    }
}
