//! Media types (RFC 2046, with the syntax of RFC 2045 section 5.1): read once, asked by every format and binding.

/// A media type taken apart; comparisons ignore letter case (RFC 2045 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaType<'a> {
    kind: &'a str,
    subtype: &'a str,
    parameters: &'a str,
}

impl<'a> MediaType<'a> {
    /// Reads a media type such as `application/json; charset=utf-8`; `None` where it breaks RFC 2045 section 5.1.
    ///
    /// Blanks around `;` and an empty parameter are taken, as in HTTP (RFC 9110 section 5.6.6).
    pub fn parse(text: &'a str) -> Option<Self> {
        let (essence, parameters) = match text.find(';') {
            Some(at) => (text[..at].trim_end_matches(BLANKS), &text[at..]),
            None => (text, ""),
        };
        let (kind, subtype) = essence.split_once('/')?;
        let media_type = Self { kind, subtype, parameters };
        (is_token(kind) && is_token(subtype) && media_type.parameters().all(|parameter| parameter.is_some()))
            .then_some(media_type)
    }

    /// The type: `application` of `application/soap+xml`, as it was written.
    pub fn kind(&self) -> &'a str {
        self.kind
    }

    /// The subtype: `soap+xml` of `application/soap+xml`, as it was written.
    pub fn subtype(&self) -> &'a str {
        self.subtype
    }

    /// The structured syntax suffix (RFC 6838 section 4.2.8): `xml` of `application/soap+xml`.
    pub fn suffix(&self) -> Option<&'a str> {
        self.subtype.rsplit_once('+').map(|(_, suffix)| suffix)
    }

    /// Whether type and subtype are these, whatever the parameters.
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
    }

    /// Whether the content is JSON: subtype `json` or suffix `+json` under any type (CloudEvents JSON format 3.1).
    pub fn is_json(&self) -> bool {
        self.has_syntax("json")
    }

    /// Whether content of this type that is valid UTF-8 may be taken for text: `text/*` and XML, unless another charset
    /// is declared.
    pub fn is_text(&self) -> bool {
        let charset_fits = self.parameter("charset").is_none_or(|charset| {
            ["utf-8", "utf8", "us-ascii"].iter().any(|fitting| charset.eq_ignore_ascii_case(fitting))
        });
        (self.kind.eq_ignore_ascii_case("text") || self.has_syntax("xml")) && charset_fits
    }

    /// Whether HTTP and its kin take this content type for a mode of CloudEvents and not for data (HTTP binding 3):
    /// anything that begins with `application/cloudevents`.
    pub fn is_cloudevents(&self) -> bool {
        self.kind.eq_ignore_ascii_case("application")
            && self.subtype.get(.."cloudevents".len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case("cloudevents"))
    }

    /// The value of a parameter without its quotes; backslash escapes are left as they are.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters()
            .flatten()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
    }

    fn has_syntax(&self, syntax: &str) -> bool {
        self.subtype.eq_ignore_ascii_case(syntax)
            || self.suffix().is_some_and(|suffix| suffix.eq_ignore_ascii_case(syntax))
    }

    fn parameters(&self) -> Parameters<'a> {
        Parameters { rest: self.parameters }
    }
}

/// Whether a `datacontenttype` lets `data` of a JSON event be JSON: it declares JSON, or is absent (CloudEvents JSON
/// format 3.1). One that is no media type says nothing, and is a fault of its own.
pub(crate) fn allows_json(content_type: Option<&str>) -> bool {
    content_type.and_then(MediaType::parse).is_none_or(|media_type| media_type.is_json())
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Gives name and value of each parameter, and `None` once where the syntax is broken.
struct Parameters<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Option<(&'a str, &'a str)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let Some(text) = self.rest.strip_prefix(';') else {
                self.rest = "";
                return Some(None);
            };
            let text = text.trim_start_matches(BLANKS);
            if text.is_empty() || text.starts_with(';') {
                self.rest = text;
                continue;
            }
            let parameter = split_parameter(text);
            self.rest = parameter.map_or("", |(_, _, rest)| rest);
            return Some(parameter.map(|(name, value, _)| (name, value)));
        }
    }
}

/// Name, value and what follows them.
fn split_parameter(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_once('=')?;
    let length = match rest.as_bytes().first()? {
        b'"' => quoted_bytes(rest)?,
        _ => rest.find(|character| character == ';' || BLANKS.contains(&character)).unwrap_or(rest.len()),
    };
    let (value, rest) = rest.split_at(length);
    let good = is_token(name) && (value.starts_with('"') || is_token(value));
    good.then_some((name, value, rest.trim_start_matches(BLANKS)))
}

/// The length of the quoted string that a text begins with.
fn quoted_bytes(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if !(b' '..=b'~').contains(&byte) => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(index + 1),
            _ => {}
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::MediaType;

    #[test]
    fn syntax() {
        let good = [
            "text/plain",
            "a/b;c=d",
            "a/b; c=d ; e=\"f;\\\"g\"",
            "a/b;",
            "application/vnd.a.b+json",
            "a/b;;c=d",
            "a/*",
            "a/b ; c=d",
        ];
        for text in good {
            assert!(MediaType::parse(text).is_some(), "{text}");
        }
        let bad = [
            "",
            "xyz",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            "a/b;c",
            "a/b;c=",
            "a/b;=d",
            "a/b;c=d e",
            "a/b;c=\"d",
            "a/b;c=\"d\"e",
            "a/b;c=(d)",
            " a/b",
            "a/b ",
            "a/é",
            "a/b;c=\"é\"",
            "a/b, c/d",
        ];
        for text in bad {
            assert!(MediaType::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn json_and_text() {
        let json = |text| MediaType::parse(text).unwrap().is_json();
        assert!(json("application/json") && json("TEXT/JSON; a=b") && json("application/vnd.acme.order+json"));
        assert!(!json("application/json5") && !json("application/jsonl") && !json("application/json+zip"));
        let text = |text| MediaType::parse(text).unwrap().is_text();
        assert!(text("text/plain") && text("Text/HTML; charset=\"UTF-8\"") && text("application/soap+xml"));
        assert!(!text("text/plain; charset=iso-8859-1") && !text("application/octet-stream"));
        assert!(MediaType::parse("Application/CloudEvents+json").unwrap().is_cloudevents());
        assert!(!MediaType::parse("application/cloud").unwrap().is_cloudevents());
    }
}
