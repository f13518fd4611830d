//! Values of arguments that are more than text.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderValue, Uri};
use tidegate_schemas::limits::{EVENT_ATTRIBUTES_BYTES, EVENT_BYTES};

/// The address of a gateway: scheme and authority, and a path before the API's own where a proxy stands in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server(Uri);

impl Server {
    /// Where `tidegate dev` listens.
    pub const DEFAULT: &'static str = "http://127.0.0.1:3500";

    /// Whether connections are to be encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// The address of a path of the API, which begins with a slash and may carry a query.
    pub fn join(&self, path_and_query: &str) -> Result<Uri, http::uri::InvalidUri> {
        format!("{self}{path_and_query}").parse()
    }
}

impl fmt::Display for Server {
    /// The URL without a slash at its end.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.to_string().trim_end_matches('/'))
    }
}

impl Default for Server {
    fn default() -> Self {
        Self(Uri::from_static(Self::DEFAULT))
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = with_scheme.parse().map_err(|error| format!("not a URL: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(format!("a gateway is spoken to over http:// or https://, as in {}", Self::DEFAULT));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if uri.host().is_none_or(str::is_empty) {
            return Err(format!("the URL names no host; write it as {}", Self::DEFAULT));
        }
        if authority.contains('@') {
            return Err("the URL carries credentials; give a token with --token or TIDEGATE_TOKEN".to_owned());
        }
        if uri.query().is_some() {
            return Err("the URL carries a query; give scheme, host and port only".to_owned());
        }
        Ok(Self(uri))
    }
}

/// A bearer token. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(HeaderValue);

impl Token {
    /// The value of the `Authorization` header (RFC 6750 section 2.1).
    pub fn authorization(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a token is made of visible ASCII characters, without blanks".to_owned());
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// An address to listen on; `localhost` stands for 127.0.0.1.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:3500 or [::1]:3500".to_owned())
}

/// A duration with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match tidegate_resources::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("write a number with its unit (ms, s, m, h or d), such as 30s".to_owned()),
    }
}

/// A payload that still fits into an event with its attributes.
pub(super) fn payload_bytes(text: &str) -> Result<usize, String> {
    let most = EVENT_BYTES - EVENT_ATTRIBUTES_BYTES;
    match text.parse() {
        Ok(bytes) if (2..=most).contains(&bytes) => Ok(bytes),
        _ => Err(format!("write a number of bytes from 2 to {most}")),
    }
}
