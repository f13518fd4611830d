//! What a broker is opened with.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_backbone::Result;
use tidegate_schemas::limits;

use crate::error::misconfigured;

/// An encrypted connection.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The certificates of authorities that are trusted; those of the system where there is none.
    pub ca: Option<PathBuf>,
    /// The certificate that the client shows, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What a broker is opened with.
#[derive(Clone)]
pub struct Options {
    /// Where nodes of the cluster can be reached: hosts and ports, tried in their order.
    pub hosts: Vec<(String, u16)>,
    /// The virtual host.
    pub vhost: String,
    /// The user's name.
    pub user: String,
    /// The password. It is never shown.
    pub password: String,
    /// An encrypted connection, where it is wanted.
    pub tls: Option<Tls>,
    /// What stands before the names of slots, outcomes and lanes.
    pub namespace: String,
    /// What stands before the names of users' topics.
    pub topic_prefix: String,
    /// The slots that a new cluster is created with.
    pub slots: u32,
    /// Partitions of a new topic where nothing is said.
    pub partitions_default: u32,
    /// The bytes of a segment of a new stream: what is let go of goes in whole segments.
    pub segment_bytes: u64,
    /// The age beyond which the broker lets go of segments of new streams of topics, whatever the gateway says.
    pub topic_age_max: Option<Duration>,
    /// On how many nodes each new stream is kept; the broker's default, which is all of them, where nothing is said.
    pub replicas: Option<u32>,
    /// Appends that may wait for their confirmation, in each of two groups (topics, slots). Default
    /// [`limits::RABBITMQ_QUEUE_RECORDS`].
    pub queue_records: usize,
    /// The bytes of those appends. Default [`limits::RABBITMQ_QUEUE_BYTES`].
    pub queue_bytes: usize,
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Options")
            .field("hosts", &self.hosts)
            .field("vhost", &self.vhost)
            .field("user", &self.user)
            .field("tls", &self.tls)
            .field("namespace", &self.namespace)
            .field("topic_prefix", &self.topic_prefix)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults, for the nodes of a URL:
    /// `amqp://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/VHOST][?ca=FILE&certificate=FILE&key=FILE]`.
    ///
    /// Over TLS the scheme is `amqps`. User, password and virtual host are percent-encoded where they need it; they are
    /// `guest`, `guest` and `/` where nothing is said, as everywhere with RabbitMQ.
    ///
    /// # Errors
    /// [`tidegate_backbone::ErrorKind::Misconfigured`] where the URL is not of that form. A password is in no message.
    pub fn from_url(url: &str) -> Result<Self> {
        let wrong = |what: &str| misconfigured(format!("the URL of the RabbitMQ broker {what}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("does not begin with amqp://"))?;
        let secure = match scheme {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(wrong("does not begin with amqp:// or amqps://")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let (hosts, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if secure { 5671 } else { 5672 };
        let mut options = Self {
            hosts: Vec::new(),
            vhost: "/".to_owned(),
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            tls: secure.then(Tls::default),
            namespace: "tidegate".to_owned(),
            topic_prefix: String::new(),
            slots: 16,
            partitions_default: 4,
            segment_bytes: limits::RABBITMQ_SEGMENT_BYTES,
            topic_age_max: None,
            replicas: None,
            queue_records: limits::RABBITMQ_QUEUE_RECORDS,
            queue_bytes: limits::RABBITMQ_QUEUE_BYTES,
        };
        for host in hosts.split(',') {
            let (name, port) = match host.rsplit_once(':') {
                Some((name, number)) => (name, number.parse().ok()),
                None => (host, Some(port)),
            };
            match port {
                Some(port) if !name.is_empty() => options.hosts.push((name.trim_matches(['[', ']']).to_owned(), port)),
                _ => {
                    return Err(wrong(&format!(
                        "names {host:?}, which is not HOST:PORT (RabbitMQ's usual port is 5672)"
                    )));
                }
            }
        }
        let decoded =
            |text: &str| decoded(text).ok_or_else(|| wrong("has a malformed % in its user, password or virtual host"));
        if let Some(credentials) = credentials {
            let (user, password) = credentials
                .split_once(':')
                .ok_or_else(|| wrong("has a user without a password; write USER:PASSWORD@"))?;
            (options.user, options.password) = (decoded(user)?, decoded(password)?);
        }
        if !vhost.is_empty() {
            options.vhost = decoded(vhost)?;
        }
        let (mut certificate, mut key) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "tls" => options.tls = Some(options.tls.take().unwrap_or_default()),
                "ca" => options.tls.get_or_insert_default().ca = Some(value.into()),
                "certificate" => certificate = Some(PathBuf::from(value)),
                "key" => key = Some(PathBuf::from(value)),
                _ => return Err(wrong(&format!("has {name:?}; tls, ca, certificate and key are known"))),
            }
        }
        match (certificate, key) {
            (None, None) => {}
            (Some(certificate), Some(key)) => options.tls.get_or_insert_default().identity = Some((certificate, key)),
            _ => return Err(wrong("has certificate= without key=, or the other way round; both are needed")),
        }
        Ok(options)
    }

    /// Where it is, for people.
    pub(crate) fn address(&self) -> String {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        let hosts: Vec<String> = self.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        format!("{scheme}://{}", hosts.join(","))
    }

    /// Fails where names cannot be made with it.
    pub(crate) fn check(&self) -> Result<()> {
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if self.namespace.is_empty() || self.namespace.len() > limits::NAMESPACE_BYTES || !plain(&self.namespace) {
            return Err(misconfigured(format!(
                "the namespace {:?} cannot be used; write at most {} letters, digits, '-', '_' and '.'",
                self.namespace,
                limits::NAMESPACE_BYTES
            )));
        }
        if self.topic_prefix.len() > limits::TOPIC_PREFIX_BYTES || !plain(&self.topic_prefix) {
            return Err(misconfigured(format!(
                "the prefix of topics {:?} cannot be used; write at most {} letters, digits, '-', '_' and '.'",
                self.topic_prefix,
                limits::TOPIC_PREFIX_BYTES
            )));
        }
        if self.hosts.is_empty() || self.slots == 0 {
            return Err(misconfigured("RabbitMQ needs a host and at least one slot"));
        }
        Ok(())
    }
}

/// Text whose `%` stand for bytes.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first == b'%' {
            let digits = std::str::from_utf8(others.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &others[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let options = Options::from_url("amqp://a:b%40c@one:1,two/v%2Fh").unwrap();
        assert_eq!(options.hosts, [("one".to_owned(), 1), ("two".to_owned(), 5672)]);
        assert_eq!((&*options.user, &*options.password, &*options.vhost), ("a", "b@c", "v/h"));
        assert!(options.tls.is_none());
        let options = Options::from_url("amqps://host?ca=/ca.pem&certificate=c&key=k").unwrap();
        assert_eq!(options.hosts, [("host".to_owned(), 5671)]);
        assert_eq!((&*options.user, &*options.vhost), ("guest", "/"));
        let tls = options.tls.unwrap();
        assert!(tls.ca.is_some() && tls.identity.is_some());
        for (url, says) in [
            ("kafka://h:1", "amqp://"),
            ("host:1", "amqp://"),
            ("amqp://h:x", "HOST:PORT"),
            ("amqp://user@h:1", "without a password"),
            ("amqp://a:%zz@h:1", "malformed %"),
            ("amqp://h:1?heartbeat=1", "are known"),
            ("amqp://h:1?key=k", "both are needed"),
        ] {
            let error = Options::from_url(url).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
        let shown = format!("{:?}", Options::from_url("amqp://a:secret@h:1").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
