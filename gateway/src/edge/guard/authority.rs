use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host with its port, as `Host` and an authority write it; equal when they mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    name: Name,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Address(IpAddr),
    /// In lower case, without the dot of the root.
    Registered(String),
}

impl Host {
    /// Reads `host[:port]` (RFC 3986 3.2.2 and 3.2.3); user information is refused. Only the dotted-decimal form is an
    /// IPv4 address here: what else a resolver takes for one stays a name, which nobody allows.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']')?;
                let address: Ipv6Addr = address.parse().ok()?;
                (Name::Address(IpAddr::V6(address)), rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""))?)
            }
            None => {
                let (host, port) = text.split_once(':').unwrap_or((text, ""));
                (Name::parse(host)?, port)
            }
        };
        let port = match port {
            "" => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        Some(Self { name: host, port })
    }

    /// Whether it is loopback, `local`, or one of the names.
    pub(super) fn is_known(&self, names: &[String], local: Option<IpAddr>) -> bool {
        match &self.name {
            Name::Address(address) => {
                address.is_loopback()
                    || local.is_some_and(|local| local.to_canonical() == address.to_canonical())
                    || names.iter().any(|name| name.parse().is_ok_and(|allowed: IpAddr| allowed == *address))
            }
            Name::Registered(name) => name == "localhost" || names.iter().any(|allowed| allowed == name),
        }
    }
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
            return Some(Self::Address(IpAddr::V4(address)));
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let valid = !text.is_empty()
            && text.len() <= 253
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        valid.then(|| Self::Registered(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
            Name::Address(address) => address.fmt(formatter),
            Name::Registered(name) => formatter.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_the_own_address_and_allowed_names_are_known() {
        let names = ["gateway.example".to_owned(), "192.0.2.7".to_owned()];
        let local = Some("10.1.2.3".parse().unwrap());
        let known = |text: &str| Host::parse(text).map(|host| host.is_known(&names, local));
        for text in [
            "localhost",
            "LocalHost:3500",
            "localhost.",
            "127.0.0.1:3500",
            "127.9.9.9",
            "[::1]",
            "[::1]:3500",
            "10.1.2.3:80",
            "Gateway.Example:443",
            "192.0.2.7",
        ] {
            assert_eq!(known(text), Some(true), "{text}");
        }
        for text in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "2130706433",
            "0x7f.1",
            "127.1",
            "0.0.0.0",
            "[::]",
            "[::ffff:8.8.8.8]",
            "10.1.2.4",
            "notlocalhost",
        ] {
            assert_eq!(known(text), Some(false), "{text}");
        }
        for text in [
            "",
            ":80",
            "user@localhost",
            "localhost:x",
            "localhost:99999",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "a/b",
            "a b",
            "::1",
        ] {
            assert_eq!(known(text), None, "{text}");
        }
    }
}
