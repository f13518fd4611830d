//! What a broker is opened with, and the settings of the clients that follow from it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use rdkafka::ClientConfig;
use tidegate_backbone::{Error, ErrorKind, Result};
use tidegate_schemas::limits;

/// Name and password, and how they are proven.
#[derive(Clone)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// The user's name.
    pub user: String,
    /// The password. It is never shown.
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sasl")
            .field("mechanism", &self.mechanism)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// An encrypted connection.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The certificates of authorities that are trusted; those of the system where there is none.
    pub ca: Option<PathBuf>,
    /// The certificate that the client shows, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What a broker is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where brokers of the cluster can be reached, each `HOST:PORT`.
    pub bootstrap: Vec<String>,
    /// An encrypted connection, where it is wanted.
    pub tls: Option<Tls>,
    /// Name and password, where the broker wants them.
    pub sasl: Option<Sasl>,
    /// What stands before the names of slots, outcomes and lanes.
    pub namespace: String,
    /// What stands before the names of users' topics.
    pub topic_prefix: String,
    /// The slots that a new cluster is created with.
    pub slots: u32,
    /// Partitions of a new topic where nothing is said.
    pub partitions_default: u32,
    /// Copies of each record. Where nothing is said: 3 where the broker has three nodes, else 1.
    pub replication: Option<u16>,
    /// Appends that may wait for their acknowledgement, in each of two groups (topics, slots). Default
    /// [`limits::KAFKA_QUEUE_RECORDS`].
    pub queue_records: usize,
    /// The bytes of those appends. Default [`limits::KAFKA_QUEUE_BYTES`].
    pub queue_bytes: usize,
    /// Settings of the client library, by their names there; only those in [`Options::SETTINGS`] are taken.
    pub settings: BTreeMap<String, String>,
}

/// A client by what it is for: each has connections of its own, so that none waits behind another's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Questions to the broker, and its administration.
    Ask,
    /// Appends to users' topics.
    WriteTopics,
    /// Appends to slots and outcomes.
    WriteSlots,
    /// Readers of users' topics.
    ReadTopics,
    /// Readers of slots and outcomes.
    ReadSlots,
    /// Messages to other nodes.
    WriteLanes,
    /// Messages of other nodes.
    ReadLanes,
}

impl Options {
    /// The settings of the client library that [`Options::settings`] may change.
    pub const SETTINGS: [&'static str; 17] = [
        "broker.address.family",
        "client.dns.lookup",
        "client.id",
        "client.rack",
        "compression.type",
        "connections.max.idle.ms",
        "enable.gapless.guarantee",
        "fetch.wait.max.ms",
        "linger.ms",
        "message.timeout.ms",
        "metadata.max.age.ms",
        "reconnect.backoff.max.ms",
        "socket.connection.setup.timeout.ms",
        "socket.keepalive.enable",
        "socket.timeout.ms",
        "ssl.endpoint.identification.algorithm",
        "topic.metadata.refresh.interval.ms",
    ];

    /// The defaults, for the brokers of a URL: `kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…][?tls&sasl=MECHANISM&ca=FILE]`.
    ///
    /// User and password are percent-encoded where they need it. `sasl` is `plain` (the default with a user),
    /// `scram-sha-256` or `scram-sha-512`; `ca` and `certificate` with `key` are files, and mean `tls`.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] where the URL is not of that form. A password is in no message.
    pub fn from_url(url: &str) -> Result<Self> {
        let wrong = |what: &str| Error::new(ErrorKind::Misconfigured, format!("the URL of the Kafka broker {what}"));
        let rest = url.strip_prefix("kafka://").ok_or_else(|| wrong("does not begin with kafka://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (credentials, hosts) = match rest.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, rest),
        };
        let bootstrap: Vec<String> = hosts.trim_end_matches('/').split(',').map(str::to_owned).collect();
        for host in &bootstrap {
            let port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                return Err(wrong(&format!("names {host:?}, which is not HOST:PORT (Kafka's usual port is 9092)")));
            }
        }
        let mut options = Self {
            bootstrap,
            tls: None,
            sasl: None,
            namespace: "tidegate".to_owned(),
            topic_prefix: String::new(),
            slots: 16,
            partitions_default: 4,
            replication: None,
            queue_records: limits::KAFKA_QUEUE_RECORDS,
            queue_bytes: limits::KAFKA_QUEUE_BYTES,
            settings: BTreeMap::new(),
        };
        if let Some(credentials) = credentials {
            let (user, password) = credentials
                .split_once(':')
                .ok_or_else(|| wrong("has a user without a password; write USER:PASSWORD@"))?;
            let decoded = |text: &str| decoded(text).ok_or_else(|| wrong("has a malformed % in its user or password"));
            options.sasl =
                Some(Sasl { mechanism: "PLAIN".to_owned(), user: decoded(user)?, password: decoded(password)? });
        }
        let mut certificate = None;
        let mut key = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "tls" => options.tls = Some(options.tls.take().unwrap_or_default()),
                "ca" => options.tls.get_or_insert_default().ca = Some(value.into()),
                "certificate" => certificate = Some(PathBuf::from(value)),
                "key" => key = Some(PathBuf::from(value)),
                "sasl" => {
                    let mechanism = value.to_ascii_uppercase();
                    if !["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].contains(&&*mechanism) {
                        return Err(wrong(&format!(
                            "asks for sasl={value}; plain, scram-sha-256 and scram-sha-512 are known"
                        )));
                    }
                    let sasl = options.sasl.as_mut().ok_or_else(|| wrong("has sasl= and no USER:PASSWORD@"))?;
                    sasl.mechanism = mechanism;
                }
                _ => return Err(wrong(&format!("has {name:?}; tls, ca, certificate, key and sasl are known"))),
            }
        }
        match (certificate, key) {
            (None, None) => {}
            (Some(certificate), Some(key)) => {
                options.tls.get_or_insert_default().identity = Some((certificate, key));
            }
            _ => return Err(wrong("has one of certificate and key; both are needed")),
        }
        Ok(options)
    }

    /// The settings of a client.
    pub(crate) fn client(&self, purpose: Purpose) -> ClientConfig {
        let mut config = ClientConfig::new();
        let mut set = |name: &str, value: &str| {
            config.set(name, value);
        };
        set("bootstrap.servers", &self.bootstrap.join(","));
        set("client.id", "tidegate");
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        };
        set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            if let Some(ca) = &tls.ca {
                set("ssl.ca.location", &ca.to_string_lossy());
            }
            if let Some((certificate, key)) = &tls.identity {
                set("ssl.certificate.location", &certificate.to_string_lossy());
                set("ssl.key.location", &key.to_string_lossy());
            }
        }
        if let Some(sasl) = &self.sasl {
            set("sasl.mechanism", &sasl.mechanism);
            set("sasl.username", &sasl.user);
            set("sasl.password", &sasl.password);
        }
        // An outage of any length is sat out by the client itself, and ends soon after the broker is back.
        set("reconnect.backoff.ms", "50");
        set("reconnect.backoff.max.ms", "500");
        set("socket.timeout.ms", "10000");
        set("socket.connection.setup.timeout.ms", "5000");
        set("socket.nagle.disable", "true");
        set("topic.metadata.propagation.max.ms", "5000");
        match purpose {
            Purpose::Ask => set("isolation.level", "read_uncommitted"),
            Purpose::WriteTopics | Purpose::WriteSlots => {
                set("enable.idempotence", "true");
                set("acks", "all");
                set("linger.ms", "0");
                set("message.timeout.ms", "10000");
            }
            Purpose::WriteLanes => {
                // A message is repeated by whoever waits for its answer; the client would change their order. A busy machine may
                // take seconds for all that waits at once, and what comes too late does no harm.
                set("acks", "1");
                set("linger.ms", "0");
                set("message.send.max.retries", "0");
                set("message.timeout.ms", "10000");
            }
            Purpose::ReadTopics | Purpose::ReadSlots | Purpose::ReadLanes => {
                // The name of a group is asked for, though none is ever joined: partitions are assigned by hand.
                set("group.id", &format!("{}.readers", self.namespace));
                set("enable.auto.commit", "false");
                set("enable.auto.offset.store", "false");
                set("allow.auto.create.topics", "false");
                set("fetch.queue.backoff.ms", "5");
                set("queued.max.messages.kbytes", &(limits::KAFKA_READ_QUEUE_BYTES / 1024).to_string());
                set("max.partition.fetch.bytes", &limits::KAFKA_READ_QUEUE_BYTES.to_string());
                set("fetch.max.bytes", &limits::KAFKA_FETCH_BYTES.to_string());
                let (isolation, reset, wait) = match purpose {
                    // What a transaction of others took back is no event of theirs.
                    Purpose::ReadTopics => ("read_committed", "error", "200"),
                    Purpose::ReadSlots => ("read_uncommitted", "error", "100"),
                    // What was missed in an outage is missed.
                    _ => ("read_uncommitted", "earliest", "50"),
                };
                set("isolation.level", isolation);
                set("auto.offset.reset", reset);
                set("fetch.wait.max.ms", wait);
            }
        }
        let writes = matches!(purpose, Purpose::WriteTopics | Purpose::WriteSlots);
        let reads = matches!(purpose, Purpose::ReadTopics | Purpose::ReadSlots);
        for (name, value) in &self.settings {
            let fits = match name.as_str() {
                "compression.type" | "enable.gapless.guarantee" | "linger.ms" | "message.timeout.ms" => writes,
                "fetch.wait.max.ms" => reads,
                _ => true,
            };
            if fits {
                config.set(name, value);
            }
        }
        config
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let misconfigured = |context: String| Err(Error::new(ErrorKind::Misconfigured, context));
        let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        if self.bootstrap.is_empty() {
            return misconfigured("no Kafka broker is named; write at least one HOST:PORT".to_owned());
        }
        if self.namespace.is_empty() || self.namespace.len() > 60 || !is_name(&self.namespace) {
            return misconfigured(format!(
                "the namespace {:?} must be letters, digits, `.` and `-`, 1 to 60 of them",
                self.namespace
            ));
        }
        if self.topic_prefix.len() > 60 || !is_name(&self.topic_prefix) {
            return misconfigured(format!(
                "the topic prefix {:?} must be letters, digits, `.` and `-`, at most 60 of them",
                self.topic_prefix
            ));
        }
        if let Some(name) = self.settings.keys().find(|name| !Self::SETTINGS.contains(&name.as_str())) {
            return misconfigured(format!(
                "the setting {name:?} of the Kafka client cannot be changed; these can: {}",
                Self::SETTINGS.join(", ")
            ));
        }
        Ok(())
    }
}

/// Text without percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            bytes.push(digit(rest.next())? * 16 + digit(rest.next())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_it_all() {
        let options =
            Options::from_url("kafka://me:p%40ss@a:9092,b:9093?tls&sasl=scram-sha-512&ca=/etc/ca.pem").unwrap();
        assert_eq!(options.bootstrap, ["a:9092", "b:9093"]);
        let sasl = options.sasl.as_ref().unwrap();
        assert_eq!((&*sasl.user, &*sasl.password, &*sasl.mechanism), ("me", "p@ss", "SCRAM-SHA-512"));
        assert!(!format!("{options:?}").contains("p@ss"), "a password is never shown");
        let config = options.client(Purpose::WriteSlots);
        assert_eq!(config.get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(config.get("ssl.ca.location"), Some("/etc/ca.pem"));
        assert!(Options::from_url("kafka://localhost:9092/").unwrap().tls.is_none());
    }

    #[test]
    fn a_wrong_url_is_told_without_its_password() {
        let wrong = [
            ("nats://a:1", "kafka://"),
            ("kafka://", "HOST:PORT"),
            ("kafka://a", "9092"),
            ("kafka://secret@a:1", "without a password"),
            ("kafka://u:secret@a:1?sasl=gssapi", "scram-sha-256"),
            ("kafka://u:secret%g@a:1", "malformed %"),
            ("kafka://a:1?sasl=plain", "USER:PASSWORD"),
            ("kafka://a:1?key=x", "both"),
            ("kafka://u:secret@a:1?what", "what"),
        ];
        for (url, expected) in wrong {
            let error = Options::from_url(url).unwrap_err();
            assert!(error.context().contains(expected), "{url}: {error}");
            assert!(!error.context().contains("secret"), "{error}");
        }
    }

    #[test]
    fn only_settings_that_break_no_promise_can_be_changed() {
        let mut options = Options::from_url("kafka://a:1").unwrap();
        options.settings.insert("linger.ms".to_owned(), "2".to_owned());
        assert!(options.check().is_ok());
        assert_eq!(options.client(Purpose::WriteTopics).get("linger.ms"), Some("2"));
        assert_eq!(options.client(Purpose::ReadTopics).get("linger.ms"), None);
        options.settings.insert("acks".to_owned(), "0".to_owned());
        assert!(options.check().unwrap_err().context().contains("acks"));
    }
}
