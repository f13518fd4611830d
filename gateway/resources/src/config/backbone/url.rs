//! `embedded:PATH`, `nats://HOST:PORT,…`, `kafka://HOST:PORT,…`, `amqp://HOST:PORT,…/VHOST`: which backbone, and where it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::nearest::nearest;

const EMBEDDED: &str = "embedded:./data";
/// Every scheme that a backbone has.
const SCHEMES: [&str; 7] = ["embedded", "nats", "tls+nats", "kafka", "kafka+ssl", "amqp", "amqps"];

/// A broker that may carry a gateway's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Broker {
    /// NATS JetStream.
    Nats,
    /// Apache Kafka.
    Kafka,
    /// RabbitMQ.
    Rabbitmq,
}

impl Broker {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nats, Self::Kafka, Self::Rabbitmq];

    /// Its name, which is the feature of the build too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Kafka => "kafka",
            Self::Rabbitmq => "rabbitmq",
        }
    }

    /// Its scheme without TLS.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Kafka => "kafka",
            Self::Rabbitmq => "amqp",
        }
    }

    /// Its scheme with TLS.
    pub fn tls_scheme(self) -> &'static str {
        match self {
            Self::Nats => "tls+nats",
            Self::Kafka => "kafka+ssl",
            Self::Rabbitmq => "amqps",
        }
    }

    fn default_port(self, tls: bool) -> u16 {
        match self {
            Self::Nats => 4222,
            Self::Kafka => 9092,
            Self::Rabbitmq if tls => 5671,
            Self::Rabbitmq => 5672,
        }
    }

    /// Whether this binary can drive it.
    pub fn is_built_in(self) -> bool {
        match self {
            Self::Nats => cfg!(feature = "nats"),
            Self::Kafka => cfg!(feature = "kafka"),
            Self::Rabbitmq => cfg!(feature = "rabbitmq"),
        }
    }

    fn of_scheme(scheme: &str) -> Option<(Self, bool)> {
        // As NATS itself writes it.
        if scheme == "tls" {
            return Some((Self::Nats, true));
        }
        let tls = |broker: &Self| scheme == broker.tls_scheme();
        Self::ALL
            .into_iter()
            .find(|broker| scheme == broker.scheme() || tls(broker))
            .map(|broker| (broker, tls(&broker)))
    }
}

/// The backbones of this binary, as they are written.
pub fn built_in() -> Vec<&'static str> {
    let brokers = Broker::ALL.into_iter().filter(|broker| broker.is_built_in()).map(Broker::name);
    std::iter::once("embedded").chain(brokers).collect()
}

/// Where a server of a broker listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// A name or an address, an IPv6 address in brackets.
    pub name: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.name, self.port)
    }
}

/// What carries the events of a gateway, without any secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackboneUrl {
    /// The log inside this process, `embedded:PATH`.
    Embedded {
        /// The folder of its files.
        path: PathBuf,
    },
    /// A broker, `SCHEME://HOST:PORT,…`, and behind the hosts `/VHOST` on RabbitMQ.
    Broker {
        /// Which.
        broker: Broker,
        /// Whether connections are encrypted.
        tls: bool,
        /// Its servers, at least one.
        hosts: Vec<Host>,
        /// The virtual host, on RabbitMQ; the broker's own default where nothing is said.
        vhost: Option<String>,
    },
}

/// Credentials that stand in a URL.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct UserInfo {
    pub(super) user: String,
    pub(super) password: Option<String>,
}

impl BackboneUrl {
    /// Reads a backbone URL without credentials. The error has the form `what; how to mend it` and shows nothing of the URL
    /// that may be a secret.
    pub fn parse(url: &str) -> Result<Self, String> {
        match Self::parse_with_credentials(url)? {
            (url, None) => Ok(url),
            (_, Some(_)) => Err(
                "carries credentials; a configuration file names them below `backbone.credentials`, and the variable \
                 TIDEGATE_BACKBONE may hold a URL with them"
                    .to_owned(),
            ),
        }
    }

    /// The same for a URL that may carry credentials.
    pub(super) fn parse_with_credentials(url: &str) -> Result<(Self, Option<UserInfo>), String> {
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(format!("is no backbone URL; write for example {}", examples().join(" or ")));
        };
        if scheme == "embedded" {
            return match rest.strip_prefix("//").unwrap_or(rest) {
                "" => Err(format!("names no folder; write for example `{EMBEDDED}`")),
                path => Ok((Self::Embedded { path: PathBuf::from(path) }, None)),
            };
        }
        let Some((broker, tls)) = Broker::of_scheme(scheme) else {
            let here = examples().join(" or ");
            return Err(match nearest(scheme, SCHEMES) {
                Some(near) => format!("has an unknown scheme; did you mean `{near}:`?"),
                None => format!("has an unknown scheme; this binary has {here}"),
            });
        };
        if !broker.is_built_in() {
            let name = broker.name();
            return Err(format!(
                "names the backbone `{name}`, which this binary was built without; build it with `cargo build --release \
                 -p tidegate --features {name}`, or use {}",
                examples().join(" or ")
            ));
        }
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(format!("names no server; write for example {}", example(broker)));
        };
        // A password may hold anything, so that everything up to the last `@` counts as credentials.
        let (user_info, hosts) = match rest.rsplit_once('@') {
            Some((user_info, hosts)) => (Some(read_user_info(user_info)?), hosts),
            None => (None, rest),
        };
        let (hosts, vhost) = match hosts.split_once('/') {
            Some((hosts, vhost)) if broker == Broker::Rabbitmq => (hosts, read_vhost(vhost)?),
            _ => (hosts, None),
        };
        Ok((Self::Broker { broker, tls, hosts: read_hosts(hosts, broker, tls)?, vhost }, user_info))
    }

    /// The folder of the embedded log.
    pub fn embedded_path(&self) -> Option<&Path> {
        match self {
            Self::Embedded { path } => Some(path),
            Self::Broker { .. } => None,
        }
    }

    /// Which broker it is, where it is one.
    pub fn broker(&self) -> Option<Broker> {
        match self {
            Self::Embedded { .. } => None,
            Self::Broker { broker, .. } => Some(*broker),
        }
    }
}

/// How the backbones of this binary are written.
fn examples() -> Vec<String> {
    let brokers = Broker::ALL.into_iter().filter(|broker| broker.is_built_in()).map(example);
    std::iter::once(format!("`{EMBEDDED}`")).chain(brokers).collect()
}

fn example(broker: Broker) -> String {
    format!("`{}://127.0.0.1:{}`", broker.scheme(), broker.default_port(false))
}

fn read_user_info(text: &str) -> Result<UserInfo, String> {
    const MEND: &str =
        "write them once, before the first server, as USER:PASSWORD@, and other characters as %40 for `@`";
    if text.contains('@') {
        return Err(format!("has credentials more than once, or an `@` within them; {MEND}"));
    }
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let decoded = |part: &str| decode(part).ok_or_else(|| format!("has credentials with a broken `%`; {MEND}"));
    let info = UserInfo { user: decoded(user)?, password: password.map(decoded).transpose()? };
    if info.user.is_empty() {
        return Err(format!("has credentials without a user; {MEND}"));
    }
    Ok(info)
}

/// The virtual host behind the servers; none where nothing stands there.
fn read_vhost(text: &str) -> Result<Option<String>, String> {
    if text.contains(['/', '?', '#']) {
        return Err(
            "has more behind its virtual host; write one name behind the servers, and %2F for `/` within it".to_owned()
        );
    }
    let name = decode(text).ok_or("has a virtual host with a broken `%`; write for example %2F for `/`")?;
    Ok(Some(name).filter(|name| !name.is_empty()))
}

/// Text that stands in a URL: what is no letter, digit, `-`, `_` or `.` as its bytes.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Percent-encoded text (RFC 3986 section 2.1).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = behind.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &behind[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

/// The servers, or everything that is wrong with them.
fn read_hosts(text: &str, broker: Broker, tls: bool) -> Result<Vec<Host>, String> {
    let mut faults = Vec::new();
    if text.contains(['/', '?', '#']) {
        faults.push("carries a path or a query".to_owned());
    }
    let text = text.split(['/', '?', '#']).next().unwrap_or_default();
    let mut hosts = Vec::new();
    for part in text.split(',') {
        match read_host(part, broker.default_port(tls)) {
            Ok(host) => hosts.push(host),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() {
        return Ok(hosts);
    }
    Err(format!("{}; write servers only, as in {}", faults.join(", and "), example(broker)))
}

fn read_host(text: &str, default_port: u16) -> Result<Host, String> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, behind)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                (format!("[{address}]"), if behind.is_empty() { Some("") } else { behind.strip_prefix(':') })
            }
            _ => return Err(format!("has a server `{text}`, which is no address in brackets")),
        },
        None => match text.split_once(':') {
            Some((name, port)) => (name.to_owned(), Some(port)),
            None => (text.to_owned(), Some("")),
        },
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_name = !name.is_empty() && name.len() <= 253 && name.bytes().all(legal);
    if !name.starts_with('[') && !is_name {
        return Err(if name.is_empty() {
            "has a server without a name".to_owned()
        } else {
            format!("has a server `{name}`, which is no name of a host")
        });
    }
    let port = match port {
        Some("") if !text.ends_with(':') => default_port,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => {
                return Err(format!("has the port `{port}` for {name}, which is no number from 1 to 65535"));
            }
            Ok(port) => port,
        },
        None => return Err(format!("has a server `{text}` with something behind its address")),
    };
    Ok(Host { name, port })
}

impl FromStr for BackboneUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        Self::parse(url)
    }
}

impl fmt::Display for BackboneUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { path } => write!(formatter, "embedded:{}", path.display()),
            Self::Broker { broker, tls, hosts, vhost } => {
                let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
                let scheme = if *tls { broker.tls_scheme() } else { broker.scheme() };
                write!(formatter, "{scheme}://{}", hosts.join(","))?;
                vhost.as_ref().map_or(Ok(()), |vhost| write!(formatter, "/{}", encode(vhost)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backbone_urls() {
        for (url, path) in
            [("embedded:./data", "./data"), ("embedded:/var/lib/x", "/var/lib/x"), ("embedded:///var", "/var")]
        {
            let parsed = BackboneUrl::parse(url).unwrap();
            assert_eq!(parsed.embedded_path(), Some(Path::new(path)), "{url}");
            assert_eq!(BackboneUrl::parse(&parsed.to_string()), Ok(parsed));
        }
        for (url, shown) in [
            ("nats://h", "nats://h:4222"),
            ("nats://h:1,i,[::1]:2,[::1]", "nats://h:1,i:4222,[::1]:2,[::1]:4222"),
            ("tls+nats://nats.example.com", "tls+nats://nats.example.com:4222"),
            ("tls://h", "tls+nats://h:4222"),
            ("kafka://a:9092,b:9093", "kafka://a:9092,b:9093"),
            ("kafka+ssl://a", "kafka+ssl://a:9092"),
            ("amqp://a,b:1", "amqp://a:5672,b:1"),
            ("amqp://a/", "amqp://a:5672"),
            ("amqps://a/mesh%2Feu", "amqps://a:5671/mesh%2Feu"),
        ] {
            let parsed = BackboneUrl::parse(url).unwrap();
            assert_eq!(parsed.to_string(), shown, "{url}");
            assert_eq!(BackboneUrl::parse(&parsed.to_string()), Ok(parsed));
        }
        for (url, what) in [
            ("", "is no backbone URL; "),
            ("./data", "is no backbone URL; "),
            ("embedded:", "names no folder; "),
            ("embeded:./data", "has an unknown scheme; did you mean `embedded:`?"),
            ("redis://h", "has an unknown scheme; this binary has `embedded:./data` or `nats://127.0.0.1:4222` or"),
            ("nats:h", "names no server; "),
            ("nats://", "has a server without a name; "),
            ("nats://h:x", "has the port `x` for h, which is no number from 1 to 65535; "),
            (
                "nats://h:0,i:70000",
                "has the port `0` for h, which is no number from 1 to 65535, and has the port `70000`",
            ),
            ("nats://h:", "has the port `` for h"),
            ("nats://a b", "has a server `a b`, which is no name of a host; "),
            ("nats://[::1", "has a server `[::1`"),
            ("nats://[::1]x", "has a server `[::1]x` with something"),
            ("kafka://h/vhost?x=1", "carries a path or a query; "),
            ("nats://user:secret@h:4222", "carries credentials; "),
            ("nats://secret@h:4222", "carries credentials; "),
            ("nats://u:secret@h,u:secret@i", "has credentials more than once"),
            ("nats://u:secret%@h", "has credentials with a broken `%`"),
            ("nats://:secret@h", "has credentials without a user"),
            ("amqp://user:secret@h/v", "carries credentials; "),
            ("amqp://h/a/b", "has more behind its virtual host; "),
            ("amqp://h/v?heartbeat=1", "has more behind its virtual host; "),
            ("amqp://h/%2", "has a virtual host with a broken `%`; "),
            ("amqp+ssl://h", "has an unknown scheme; this binary has"),
        ] {
            let error = BackboneUrl::parse(url).unwrap_err();
            assert!(error.starts_with(what), "{url}: {error}");
            assert!(!error.contains("secret") && error.contains("; "), "{url}: {error}");
        }
        let BackboneUrl::Broker { vhost, .. } = BackboneUrl::parse("amqp://h/a%2Fb").unwrap() else {
            panic!("no broker")
        };
        assert_eq!(vhost.as_deref(), Some("a/b"));
        let (_, info) = BackboneUrl::parse_with_credentials("nats://u%40x:p%3Aq/r@h").unwrap();
        let info = info.unwrap();
        assert_eq!((info.user.as_str(), info.password.as_deref()), ("u@x", Some("p:q/r")));
    }
}
