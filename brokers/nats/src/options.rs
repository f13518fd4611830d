//! What a NATS backbone is opened with.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;

use async_nats::ServerAddr;
use tidegate_backbone::{Error, Result};
use tidegate_schemas::limits;

use crate::error::misconfigured;
use crate::name::{is_namespace, is_topic_prefix};

/// How a client shows who it is. What is secret is never shown.
#[derive(Clone, Default)]
pub enum Credentials {
    /// It does not.
    #[default]
    None,
    /// By name and password.
    User {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// By a token.
    Token(String),
    /// By the seed of an nkey, `SU…`.
    NkeySeed(String),
    /// By a file that holds a JWT and a seed, as `nsc` writes it.
    File(PathBuf),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("none"),
            Self::User { user, .. } => write!(formatter, "user {user}"),
            Self::Token(_) => formatter.write_str("a token"),
            Self::NkeySeed(_) => formatter.write_str("an nkey"),
            Self::File(path) => write!(formatter, "the credentials file {}", path.display()),
        }
    }
}

/// Transport encryption.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Whether it must be used, also where neither the URL nor the server says so.
    pub required: bool,
    /// The authorities that servers are checked against; without one, those of the machine.
    pub ca_file: Option<PathBuf>,
    /// The certificate that the client shows, with its chain.
    pub certificate_file: Option<PathBuf>,
    /// The key of that certificate.
    pub key_file: Option<PathBuf>,
}

/// What a NATS backbone is opened with. `Debug` shows nothing secret.
#[derive(Clone, Debug)]
pub struct Options {
    servers: Vec<Server>,
    /// How the client shows who it is; the URL may say it too. Default [`Credentials::None`].
    pub credentials: Credentials,
    /// Transport encryption.
    pub tls: Tls,
    /// What stands before the names of slots, outcomes and lanes: one for each cluster. Default `tidegate`.
    pub namespace: String,
    /// What stands before the names of topics. Default empty.
    pub topic_prefix: String,
    /// Slots that a new cluster is created with. Default 16.
    pub slots: u32,
    /// On how many servers each stream is kept. By default on 3 where the servers are a cluster of as many, else on 1.
    pub replicas: Option<u32>,
    /// Appends that may wait for their acknowledgement. Default [`limits::APPEND_QUEUE_RECORDS`].
    pub queue_records: usize,
    /// The bytes of those appends. Default [`limits::APPEND_QUEUE_BYTES`].
    pub queue_bytes: usize,
    /// What one reader holds in memory, about. Default [`limits::NATS_PULL_BYTES`].
    pub tail_bytes: usize,
}

#[derive(Clone)]
struct Server {
    scheme: &'static str,
    host: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme, self.host)
    }
}

impl Options {
    /// The defaults, for the servers of a URL: `nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT][,HOST[:PORT]…]`; with `tls://` or
    /// `tls+nats://` only over TLS.
    ///
    /// # Errors
    /// [`tidegate_backbone::ErrorKind::Misconfigured`] where it is no such URL; the error repeats no secret.
    pub fn new(url: &str) -> Result<Self> {
        const FORM: &str = "write nats://HOST:4222, or tls://HOST:4222 for TLS; several hosts are parted by commas";
        let (scheme, rest) = match url.split_once("://") {
            Some(("nats", rest)) => ("nats", rest),
            Some(("tls" | "tls+nats", rest)) => ("tls", rest),
            _ => return Err(misconfigured(format!("the address of the NATS server has no known scheme; {FORM}"))),
        };
        let (user_info, hosts) = match rest.rsplit_once('@') {
            Some((user_info, hosts)) => (Some(user_info), hosts),
            None => (None, rest),
        };
        let hosts = hosts.trim_end_matches('/');
        let credentials = match user_info.map(|info| info.split_once(':').ok_or(info)) {
            None => Credentials::None,
            Some(Ok((user, password))) => Credentials::User { user: decoded(user)?, password: decoded(password)? },
            Some(Err(token)) => Credentials::Token(decoded(token)?),
        };
        let mut servers = Vec::new();
        for host in hosts.split(',') {
            let server = Server { scheme, host: host.trim().to_owned() };
            let valid = !server.host.is_empty() && !server.host.contains(['/', '?', '#']);
            let address = ServerAddr::from_str(&format!("{server:?}"));
            match address {
                Ok(address) if valid && !address.host().is_empty() => servers.push(server),
                _ => return Err(misconfigured(format!("{host:?} is no host of a NATS server; {FORM}"))),
            }
        }
        Ok(Self {
            servers,
            credentials,
            tls: Tls::default(),
            namespace: "tidegate".to_owned(),
            topic_prefix: String::new(),
            slots: 16,
            replicas: None,
            queue_records: limits::APPEND_QUEUE_RECORDS,
            queue_bytes: limits::APPEND_QUEUE_BYTES,
            tail_bytes: limits::NATS_PULL_BYTES,
        })
    }

    /// The servers, as an error may name them.
    pub fn address(&self) -> String {
        self.servers.iter().map(|server| format!("{server:?}")).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn servers(&self) -> Result<Vec<ServerAddr>> {
        let parse = |server: &Server| {
            let text = format!("{server:?}");
            ServerAddr::from_str(&text)
                .map_err(|error| misconfigured(format!("{text} is no address")).with_source(error))
        };
        self.servers.iter().map(parse).collect()
    }

    /// What is wrong with the fields.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(misconfigured(text));
        if !is_namespace(&self.namespace) {
            return refuse(format!(
                "the namespace {:?} cannot be used; use up to 32 letters, digits, - and _",
                self.namespace
            ));
        }
        if !is_topic_prefix(&self.topic_prefix) {
            return refuse(format!(
                "the prefix of topics {:?} cannot be used; use up to 64 letters, digits, -, _ and single dots",
                self.topic_prefix
            ));
        }
        if self.slots == 0 || self.queue_records == 0 {
            return refuse("there must be at least one slot, and one append at once".to_owned());
        }
        if self.replicas.is_some_and(|replicas| !(1..=5).contains(&replicas)) {
            return refuse("a stream can be kept on 1 to 5 servers; set replicas to one of these".to_owned());
        }
        if self.tls.certificate_file.is_some() != self.tls.key_file.is_some() {
            return refuse("a client's certificate and its key are set together, or neither".to_owned());
        }
        Ok(())
    }
}

/// Without percent-encoding.
fn decoded(text: &str) -> Result<String> {
    let unreadable = || misconfigured("the user part of the address of the NATS server is not percent-encoded text");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(unreadable)?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| unreadable())?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|_| unreadable())
}

impl std::str::FromStr for Options {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::new(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let options = Options::new("nats://a:4222,b:4223").unwrap();
        assert_eq!(options.address(), "nats://a:4222,nats://b:4223");
        let options = Options::new("tls+nats://user:p%40ss%3Aword@[::1]:4222/").unwrap();
        assert_eq!(options.address(), "tls://[::1]:4222");
        assert!(
            matches!(&options.credentials, Credentials::User { user, password } if user == "user" && password == "p@ss:word")
        );
        let options = Options::new("nats://s3cr3t@h").unwrap();
        assert!(matches!(&options.credentials, Credentials::Token(token) if token == "s3cr3t"));
        for bad in ["h:4222", "http://h", "nats://", "nats://a,,b", "nats://a/b", "nats://u:%zz@h", "nats://h:99999"] {
            let error = Options::new(bad).expect_err(bad).to_string();
            assert!(error.contains("nats://HOST") || error.contains("percent-encoded"), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        for url in ["nats://user:s3cr3t@h", "nats://s3cr3t@h"] {
            let options = Options::new(url).unwrap();
            assert!(!format!("{options:?} {}", options.address()).contains("s3cr3t"));
        }
        let seed = Credentials::NkeySeed("s3cr3t".to_owned());
        assert!(!format!("{seed:?}").contains("s3cr3t"));
        let error = Options::new("nats://u:s3cr3t@a b").unwrap_err().to_string();
        assert!(!error.contains("s3cr3t"), "{error}");
    }

    #[test]
    fn fields_are_checked() {
        let change = |change: fn(&mut Options)| {
            let mut options = Options::new("nats://h").unwrap();
            change(&mut options);
            options.check()
        };
        assert!(change(|_| {}).is_ok());
        assert!(change(|options| options.namespace = "a.b".to_owned()).is_err());
        assert!(change(|options| options.topic_prefix = "*".to_owned()).is_err());
        assert!(change(|options| options.replicas = Some(7)).is_err());
        assert!(change(|options| options.tls.key_file = Some("k".into())).is_err());
    }
}
