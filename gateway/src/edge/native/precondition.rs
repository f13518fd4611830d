//! `If-Match` and `If-None-Match` of requests that change something (RFC 9110, 13.1).

use http::{HeaderMap, HeaderValue, header};

use crate::blocks::pubsub::Expected;
use crate::edge::problem::{Code, Problem};

/// What the headers expect of a resource. `If-Match` compares strongly, so a weak tag matches nothing; of `If-None-Match`
/// only `*` has a meaning here.
pub(super) fn read(headers: &HeaderMap) -> Result<Expected, Problem> {
    let mut expected = Expected::default();
    for field in headers.get_all(header::IF_MATCH) {
        let text = field.to_str().unwrap_or_default().trim();
        if text == "*" {
            expected.present = true;
        } else {
            expected.tags.get_or_insert_default().extend(tags(text)?);
        }
    }
    for field in headers.get_all(header::IF_NONE_MATCH) {
        if field.to_str().unwrap_or_default().trim() != "*" {
            let detail = "If-None-Match is understood as * only: the request creates and never changes.";
            return Err(Problem::new(Code::InvalidArgument, detail));
        }
        expected.absent = true;
    }
    Ok(expected)
}

/// A tag as a header has it.
pub(super) fn etag(tag: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(&format!("\"{tag}\""))
        .map_err(|_| Problem::new(Code::Internal, "An entity tag could not be written."))
}

fn tags(text: &str) -> Result<Vec<String>, Problem> {
    let refuse = || {
        let detail = format!("If-Match is a list of quoted tags, such as \"5e0b\", or *, and not {text:?}.");
        Problem::new(Code::InvalidArgument, detail)
    };
    let mut tags = Vec::new();
    for item in text.split(',').map(str::trim) {
        let weak = item.strip_prefix("W/");
        let quoted = weak.unwrap_or(item);
        let inside = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(refuse)?;
        if inside.contains('"') {
            return Err(refuse());
        }
        if weak.is_none() {
            tags.push(inside.to_owned());
        }
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preconditions() {
        let check = |name: http::HeaderName, value: &str, expected: Option<Expected>| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())]);
            assert_eq!(read(&headers).ok(), expected, "{value}");
        };
        let tags = |tags: &[&str]| {
            let tags = Some(tags.iter().map(ToString::to_string).collect());
            Some(Expected { tags, ..Expected::default() })
        };
        check(header::IF_MATCH, "\"a\"", tags(&["a"]));
        check(header::IF_MATCH, "\"a\", W/\"b\",\"c\"", tags(&["a", "c"]));
        check(header::IF_MATCH, "W/\"b\"", tags(&[]));
        check(header::IF_MATCH, "*", Some(Expected { present: true, ..Expected::default() }));
        check(header::IF_NONE_MATCH, "*", Some(Expected { absent: true, ..Expected::default() }));
        for (name, value) in [(header::IF_MATCH, "a"), (header::IF_MATCH, ""), (header::IF_NONE_MATCH, "\"a\"")] {
            check(name, value, None);
        }
    }
}
