//! The syntax of RFC 3986, checked without taking anything apart that nobody asks for.

/// Why a text is not a URI reference (RFC 3986 4.1), or whether it has a scheme.
pub(super) fn reference(text: &str) -> Result<bool, String> {
    let (has_scheme, rest) = split_scheme(text)?;
    let (rest, fragment) = split_at(rest, '#');
    let (hierarchy, query) = split_at(rest, '?');
    let path = match hierarchy.strip_prefix("//") {
        Some(after) => {
            let end = after.find('/').unwrap_or(after.len());
            authority(&after[..end])?;
            &after[end..]
        }
        None => hierarchy,
    };
    characters(path, PATH)?;
    characters(query, QUERY)?;
    characters(fragment, QUERY)?;
    Ok(has_scheme)
}

/// Why a text is not an absolute URI.
///
/// RFC 3986 4.3 has no fragment in one; it is allowed here, because schemas are named with it in the field (a definition inside
/// a JSON Schema, a message of a Protobuf file) and every CloudEvents SDK passes it.
pub(super) fn absolute(text: &str) -> Result<(), String> {
    if reference(text)? {
        Ok(())
    } else {
        Err("is not an absolute URI; begin it with a scheme, as in https: or urn: (RFC 3986 section 4.3)".to_owned())
    }
}

const UNRESERVED: u8 = 1;
const SUB_DELIMITER: u8 = 2;
const COLON: u8 = 4;
const AT: u8 = 8;
const SLASH: u8 = 16;
const QUESTION: u8 = 32;

const REGISTERED_NAME: u8 = UNRESERVED | SUB_DELIMITER;
const USER: u8 = REGISTERED_NAME | COLON;
const PATH: u8 = USER | AT | SLASH;
const QUERY: u8 = PATH | QUESTION;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => UNRESERVED,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => SUB_DELIMITER,
            b':' => COLON,
            b'@' => AT,
            b'/' => SLASH,
            b'?' => QUESTION,
            _ => 0,
        };
        byte += 1;
    }
    table
}

fn split_at(text: &str, separator: char) -> (&str, &str) {
    text.split_once(separator).unwrap_or((text, ""))
}

fn split_scheme(text: &str) -> Result<(bool, &str), String> {
    let Some(end) = text.find([':', '/', '?', '#']) else { return Ok((false, text)) };
    if text.as_bytes()[end] != b':' {
        return Ok((false, text));
    }
    let scheme = &text.as_bytes()[..end];
    let good = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if good {
        Ok((true, &text[end + 1..]))
    } else {
        Err("has a colon in its first segment but no valid scheme before it; write ./ before it, or mend the scheme \
             (RFC 3986 section 4.2)"
            .to_owned())
    }
}

fn authority(text: &str) -> Result<(), String> {
    let host_and_port = match text.rsplit_once('@') {
        Some((user, rest)) => {
            characters(user, USER)?;
            rest
        }
        None => text,
    };
    let port = if let Some(literal) = host_and_port.strip_prefix('[') {
        let Some((address, rest)) = literal.split_once(']') else {
            return Err("has an IP literal without its closing bracket (RFC 3986 section 3.2.2)".to_owned());
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() && !is_future_address(address) {
            return Err("has brackets in its authority that hold no IPv6 address (RFC 3986 section 3.2.2)".to_owned());
        }
        match rest.strip_prefix(':') {
            Some(port) => port,
            None if rest.is_empty() => "",
            None => return Err("has text after an IP literal that is no port (RFC 3986 section 3.2)".to_owned()),
        }
    } else {
        let (host, port) = split_at(host_and_port, ':');
        characters(host, REGISTERED_NAME)?;
        port
    };
    if port.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(())
    } else {
        Err("has a port that is not a number (RFC 3986 section 3.2.3)".to_owned())
    }
}

fn is_future_address(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['v', 'V']) else { return false };
    let Some((version, address)) = rest.split_once('.') else { return false };
    !version.is_empty()
        && version.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !address.is_empty()
        && address.bytes().all(|byte| CLASSES[usize::from(byte)] & USER != 0)
}

fn characters(text: &str, allowed: u8) -> Result<(), String> {
    let bytes = text.as_bytes();
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        if CLASSES[usize::from(byte)] & allowed != 0 {
            index += 1;
        } else if byte == b'%' {
            let escaped =
                bytes.get(index + 1..index + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
            if !escaped {
                return Err(
                    "has a % that two hexadecimal digits do not follow; write %25 for the sign itself".to_owned()
                );
            }
            index += 3;
        } else {
            let character = text[index..].chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
            return Err(format!(
                "has {character:?} where a URI does not allow it; percent-encode it (RFC 3986 section 2)"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{absolute, reference};

    #[test]
    fn references() {
        let good = [
            "",
            "a",
            "/s",
            "//h",
            "//h/p",
            "?q",
            "#f",
            "#",
            "a/b:c",
            "./a:b",
            "urn:x",
            "mailto:a@b.c",
            "http://a",
            "http://u:p@h:80/p?q#f",
            "http://[::1]:8080/",
            "http://[v1.a:b]/",
            "1-555-123-4567",
            "a%20b",
            "x:",
            "//",
            "http://h:",
            "http:///p",
            "a?b?c/d",
            "//user@/p",
            "http://[::ffff:1.2.3.4]",
        ];
        for text in good {
            assert_eq!(reference(text).map(|_| ()), Ok(()), "{text}");
        }
        let bad = [
            "a b",
            "a\"b",
            "/{id}",
            "/søren",
            "%",
            "%4",
            "%zz",
            "1a:b",
            ":a",
            "a#b#c",
            "http://[::1",
            "http://[x]/",
            "http://h:8x/",
            "http://[::1]x",
            "a\\b",
            "a^b",
            "a|b",
            "<a>",
            "a`b",
            "http://a@b@c/",
            "[a]",
            "a\u{7f}",
            "http://[fe80::1%25eth0]/",
            "http://h:80:90",
        ];
        for text in bad {
            assert!(reference(text).is_err(), "{text}");
        }
    }

    #[test]
    fn absolute_needs_a_scheme() {
        assert_eq!(absolute("https://example.com/s#/definitions/a"), Ok(()));
        assert_eq!(absolute("urn:s:1"), Ok(()));
        assert!(absolute("#").is_err());
        assert!(absolute("//h/p").is_err());
        assert!(absolute("").is_err());
    }
}
