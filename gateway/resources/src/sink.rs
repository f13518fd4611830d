//! Where the events of a subscription go.

use std::fmt;

use http::Uri;
use tidegate_routing::TopicName;

use super::nearest::nearest;

const SCHEMES: [&str; 5] = ["http", "https", "topic", "app", "binding"];

/// The sink of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// A web hook.
    Http(HttpSink),
    /// A topic of this gateway: the event is published there again, one hop older.
    Topic(TopicName),
    /// An output binding, by its name: a queue or an exchange of a broker.
    Binding(String),
}

/// The address of a web hook. It is shown as it was written, so that a part that came from the environment stays out
/// of logs and listings.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpSink {
    uri: Uri,
    shown: Box<str>,
}

impl HttpSink {
    /// The address to call: scheme `http` or `https`, a host, no user, no fragment.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl fmt::Display for HttpSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

impl fmt::Debug for HttpSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, formatter)
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(sink) => sink.fmt(formatter),
            Self::Topic(topic) => write!(formatter, "topic://{topic}"),
            Self::Binding(name) => write!(formatter, "binding://{name}"),
        }
    }
}

impl Sink {
    /// Reads the URL of a sink. The error has the form `what; how to mend it` and holds nothing but the URL's scheme.
    pub fn parse(url: &str) -> Result<Self, String> {
        Self::parse_shown(url, url)
    }

    /// As [`Sink::parse`], with the text that stands for the URL wherever it is shown.
    pub(crate) fn parse_shown(url: &str, shown: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err("is no URL; write for example `http://127.0.0.1:8081/hook` or `topic://orders`".to_owned());
        };
        match scheme {
            "http" | "https" => {
                let uri = parse_http_url(url)?;
                Ok(Self::Http(HttpSink { uri, shown: shown.into() }))
            }
            "topic" => {
                let topic = TopicName::from_edge(rest).map_err(|error| format!("names a topic that {error}"))?;
                if topic.is_reserved() || topic.is_dead_letter() {
                    return Err("names a topic that only the gateway writes to; choose another name".to_owned());
                }
                Ok(Self::Topic(topic))
            }
            "binding" => match TopicName::parse(rest) {
                Ok(name) => Ok(Self::Binding(name.to_string())),
                Err(error) => Err(format!("names a binding that {error}")),
            },
            "app" => Err(format!(
                "has the scheme `{scheme}`, which is not available in this version; use http, https, topic or binding"
            )),
            _ => Err(match nearest(scheme, SCHEMES) {
                Some(near) => format!("has an unknown scheme; did you mean `{near}://`?"),
                None => "has an unknown scheme; use http, https, topic or binding".to_owned(),
            }),
        }
    }
}

/// An absolute URL of the schemes `http` and `https` without a user and a fragment. The error is as that of
/// [`Sink::parse`].
pub(crate) fn parse_http_url(url: &str) -> Result<Uri, String> {
    const MEND: &str = "write for example `http://127.0.0.1:8081/hook`";
    // The parser drops a fragment without a word.
    if url.contains('#') {
        return Err("has a fragment, which is never sent; remove the part from `#` on".to_owned());
    }
    let uri: Uri =
        url.parse().map_err(|_| format!("is no valid URL; {MEND}, with other characters percent-encoded"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("has another scheme than http and https; {MEND}"));
    }
    let authority = uri.authority().ok_or_else(|| format!("has no host; {MEND}"))?;
    if authority.as_str().contains('@') {
        return Err("carries credentials, which are not sent from a URL; remove the part before `@`".to_owned());
    }
    if authority.host().is_empty() {
        return Err(format!("has no host; {MEND}"));
    }
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("has a port that does not exist; use 1 to 65535".to_owned());
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_sinks() {
        for good in [
            "http://127.0.0.1:8081/hook",
            "https://example.com",
            "http://[::1]:80/x?y=z",
            "http://host/%20",
            "topic://orders.placed",
            "binding://orders-out",
        ] {
            assert_eq!(Sink::parse(good).map(|sink| sink.to_string()), Ok(good.to_owned()));
        }
        assert_eq!(Sink::parse("topic://orders/placed"), Sink::parse("topic://orders.placed"));
        for (bad, what) in [
            ("127.0.0.1:8081", "is no URL"),
            ("", "is no URL"),
            ("http://", "is no valid URL"),
            ("http:///path", "is no valid URL"),
            ("http://:80/", "has no host"),
            ("http://host:0/", "has a port"),
            ("http://host:70000/", "has a port"),
            ("http://a b/", "is no valid URL"),
            ("http://u:p@host/", "carries credentials"),
            ("http://host/#x", "has a fragment"),
            ("htp://host/", "has an unknown scheme; did you mean `http://`?"),
            ("ftp://host/", "has an unknown scheme; "),
            ("app://billing/x", "has the scheme `app`, which is not available"),
            ("binding://", "names a binding that is empty"),
            ("binding://a/b", "names a binding that"),
            ("topic://dead.x", "names a topic that only the gateway"),
            ("topic://state.x", "names a topic that only the gateway"),
            ("topic://a..b", "names a topic that has an empty segment"),
            ("topic://", "names a topic that is empty"),
        ] {
            let error = Sink::parse(bad).unwrap_err();
            assert!(error.starts_with(what), "{bad}: {error}");
            assert!(error.contains("; "), "{bad}: {error}: how to mend it?");
        }
    }

    #[test]
    fn what_came_from_the_environment_is_not_shown() {
        let sink = Sink::parse_shown("http://host/hook?token=secret", "http://host/hook?token=${env:TOKEN}").unwrap();
        assert!(!format!("{sink} {sink:?}").contains("secret"));
        let Sink::Http(http) = sink else { panic!() };
        assert_eq!(http.uri().query(), Some("token=secret"));
    }
}
