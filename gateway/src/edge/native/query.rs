//! Query strings, read with every fault named: an unknown parameter is one.

use std::borrow::Cow;

use crate::edge::problem::{Code, Problem};

/// The parameters of a query, decoded.
#[derive(Debug)]
pub(super) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Reads a query; names outside of `known` are refused.
    pub(super) fn parse(text: Option<&'a str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if !known.contains(&name.as_ref()) {
                let detail = match known {
                    [] => format!("There is no parameter {name:?} here; the path takes none."),
                    known => format!("There is no parameter {name:?} here; there are {}.", known.join(", ")),
                };
                return Err(Problem::new(Code::InvalidArgument, detail));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// The value of a parameter that may stand once.
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(Problem::new(Code::InvalidArgument, format!("The parameter {name} stands more than once.")));
        }
        Ok(first)
    }

    /// Every value of a parameter.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_ref())
    }

    /// `true` or `false`; the name alone is `true`, and nothing `false`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.one(name)? {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(text) => Err(Problem::new(Code::InvalidArgument, format!("{name} is true or false, not {text:?}."))),
        }
    }

    /// A number within bounds, or a default.
    pub(super) fn number(&self, name: &str, default: usize, max: usize) -> Result<usize, Problem> {
        let Some(text) = self.one(name)? else { return Ok(default) };
        let refuse =
            || Problem::new(Code::InvalidArgument, format!("{name} is a number from 1 to {max}, not {text:?}."));
        text.parse().ok().filter(|number| (1..=max).contains(number)).ok_or_else(refuse)
    }
}

/// A value as it stands in a query.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let refuse =
        || Problem::new(Code::InvalidArgument, format!("The query part {text:?} is not percent-encoded UTF-8."));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(refuse);
                let value = digit()? * 16 + digit()?;
                u8::try_from(value).map_err(|_| refuse())?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_unknown_ones_are_named() {
        let query = Query::parse(Some("id=1&id=a%20b+c&limit=7"), &["id", "limit"]).unwrap();
        assert_eq!(query.all("id").collect::<Vec<_>>(), ["1", "a b c"]);
        assert_eq!(query.number("limit", 1, 10).unwrap(), 7);
        assert!(query.number("limit", 1, 6).is_err());
        assert!(query.one("id").is_err());
        let problem = Query::parse(Some("form=1"), &["from"]).unwrap_err();
        assert!(problem.detail().contains("\"form\"") && problem.detail().contains("from"));
        let odd = "type = 'ä&b' AND x + 1 > 2";
        assert_eq!(decode(&encode(odd)).unwrap(), odd);
        for broken in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(Query::parse(Some(broken), &["a"]).is_err(), "{broken}");
        }
    }
}
