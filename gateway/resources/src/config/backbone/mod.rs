//! `spec.backbone`: what carries the events, and how it is reached.
//!
//! ```yaml
//!   backbone: nats://nats-1:4222,nats-2:4222          # the URL alone, or with more to say:
//!   backbone:
//!     url: tls+nats://nats-1:4222,nats-2:4222
//!     credentials: {user: tidegate, password: {secretKeyRef: {name: NATS_PASSWORD}}}
//!     tls: {ca: /etc/tidegate/ca.pem, certificate: /etc/tidegate/client.pem, key: /etc/tidegate/client.key}
//!     namespace: tidegate
//!     topicPrefix: ''
//!     slots: 16
//!     replicas: 3
//! ```
//!
//! | key | means |
//! |---|---|
//! | `url` | where its servers listen; on RabbitMQ the virtual host behind them (`amqp://rabbit-1,rabbit-2/mesh`) |
//! | `credentials` | `user` with `password`, on Kafka with a `mechanism` (`plain`, `scram-sha-256`, `scram-sha-512`); on NATS also `token`, `nkey` with the seed of a user's key, or `file` for a file of credentials (`.creds`) |
//! | `tls` | the authorities that are trusted in place of the machine's, and the certificate that the gateway shows |
//! | `namespace` | under which name everything on the broker lies that is ours; gateways of one cluster have the same |
//! | `topicPrefix` | what stands before the names of users' topics on the broker |
//! | `slots` | into how many parts the work of a new cluster is cut; one that is there keeps what it was created with |
//! | `replicas` | on how many of its servers the broker keeps each log that is created |
//!
//! Relative paths count from the working directory.

mod url;

use std::fmt;
use std::path::{Path, PathBuf};

use tidegate_schemas::limits;

use crate::reader::{Field, Fields, Reader};
use crate::secret::{self, Secret};
use crate::yaml::Content;

use url::UserInfo;
pub use url::{BackboneUrl, Broker, Host, built_in};

/// The namespace for which nothing is said.
const NAMESPACE: &str = "tidegate";

/// What carries the events of a gateway, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backbone {
    /// Which, and where.
    pub url: BackboneUrl,
    /// Who the gateway is to the broker.
    pub credentials: Option<Credentials>,
    /// What goes with connections that are encrypted.
    pub tls: Tls,
    /// Under which name everything on the broker lies that is ours.
    pub namespace: String,
    /// What stands before the names of users' topics on the broker.
    pub topic_prefix: String,
    /// Slots of a new cluster; the broker's default where nothing is said.
    pub slots: Option<u32>,
    /// Copies of each log that is created; what the broker can do where nothing is said.
    pub replicas: Option<u32>,
}

/// Who the gateway is to a broker. Values are never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// A user with a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
        /// How it is shown, on Kafka.
        mechanism: Mechanism,
    },
    /// A token, on NATS.
    Token(Secret),
    /// The seed of a user's nkey, on NATS.
    Nkey(Secret),
    /// A file of credentials, on NATS.
    File(PathBuf),
}

/// How a password is shown to Kafka (SASL).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mechanism {
    /// As it is, which wants TLS.
    Plain,
    /// Salted and hashed with SHA-256 (RFC 7677).
    ScramSha256,
    /// The same with SHA-512.
    #[default]
    ScramSha512,
}

impl Mechanism {
    const ALL: [(&'static str, Self); 3] =
        [("plain", Self::Plain), ("scram-sha-256", Self::ScramSha256), ("scram-sha-512", Self::ScramSha512)];

    /// The name that SASL has for it.
    pub fn sasl(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Files in PEM form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities that are trusted in place of the machine's.
    pub ca: Option<PathBuf>,
    /// The certificate that the gateway shows, with its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl fmt::Display for Backbone {
    /// As its URL, without any secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(formatter)
    }
}

impl From<BackboneUrl> for Backbone {
    /// With all defaults.
    fn from(url: BackboneUrl) -> Self {
        Self {
            url,
            credentials: None,
            tls: Tls::default(),
            namespace: NAMESPACE.to_owned(),
            topic_prefix: String::new(),
            slots: None,
            replicas: None,
        }
    }
}

impl Backbone {
    /// The log inside the process, in that folder.
    pub fn embedded(path: impl Into<PathBuf>) -> Self {
        BackboneUrl::Embedded { path: path.into() }.into()
    }

    /// From a URL that stands where others may read it, as arguments of a process do: with credentials it is refused.
    pub fn of_argument(url: &str) -> Result<Self, String> {
        BackboneUrl::parse(url).map(Self::from)
    }

    /// From a URL that stands where secrets may stand.
    pub fn of_variable(url: &str) -> Result<Self, String> {
        let (url, info) = BackboneUrl::parse_with_credentials(url)?;
        let mut backbone = Self::from(url);
        if let Some(info) = info {
            backbone.credentials = Some(credentials_of(info, backbone.url.broker(), "the backbone's URL")?);
        }
        Ok(backbone)
    }

    /// What a configuration file says, with another URL: what else it says goes along where the broker is the same.
    pub fn moved_to(self, other: Self) -> Self {
        if self.url.broker().is_none() || self.url.broker() != other.url.broker() {
            return other;
        }
        Self { url: other.url, credentials: other.credentials.or(self.credentials), ..self }
    }
}

fn credentials_of(info: UserInfo, broker: Option<Broker>, named: &str) -> Result<Credentials, String> {
    match (info.password, broker) {
        (Some(password), _) => Ok(Credentials::Password {
            user: info.user,
            password: Secret::new(password, named),
            mechanism: Mechanism::default(),
        }),
        (None, Some(Broker::Nats)) => Ok(Credentials::Token(Secret::new(info.user, named))),
        (None, _) => Err("names a user without a password; write USER:PASSWORD@ before the first server".to_owned()),
    }
}

pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Backbone> {
    if !matches!(field.node.content, Content::Map(_)) {
        return read_url(reader, field);
    }
    let known = ["url", "credentials", "tls", "namespace", "topicPrefix", "slots", "replicas"];
    read_settings(reader, field, &known)
}

/// The settings of a broker beside the backbone: what says where it is and who the gateway is to it.
pub(crate) fn read_broker(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Backbone> {
    read_settings(reader, field, &["url", "credentials", "tls", "namespace", "topicPrefix"])
}

fn read_settings(reader: &mut Reader<'_>, field: &Field<'_>, known: &[&str]) -> Option<Backbone> {
    let fields = reader.map(field, known)?;
    let url_field = fields.require(reader, "url", "nats://127.0.0.1:4222");
    let read = url_field.as_ref().and_then(|field| read_url(reader, field));
    // What is wrong with the rest is told whether or not the URL can be read.
    let broker = read.as_ref().and_then(|backbone| backbone.url.broker());
    let is_embedded = read.is_some() && broker.is_none();
    if is_embedded {
        for (key, field) in fields.all().filter(|(key, _)| *key != "url") {
            let what = format!("`{}` is about brokers, and the backbone is the embedded log", field.path);
            reader.fault(field.key_place, what, format!("remove `{key}`, or name a broker with `url`"));
        }
        return read;
    }
    let mut backbone = read.unwrap_or_else(|| Backbone::embedded("."));
    if let Some(field) = fields.get("credentials") {
        let twice = backbone.credentials.is_some();
        backbone.credentials = read_credentials(reader, &field, broker);
        if twice {
            let what = format!("`{}` says what the URL says already", field.path);
            reader.fault(field.key_place, what, "remove the credentials from the URL");
        }
    }
    if let Some(field) = fields.get("tls") {
        backbone.tls = read_tls(reader, &field, &backbone.url).unwrap_or_default();
    }
    if let Some(field) = fields.get("namespace") {
        backbone.namespace = reader.parsed(&field, parse_namespace).unwrap_or_default();
    }
    if let Some(field) = fields.get("topicPrefix") {
        backbone.topic_prefix = reader.parsed(&field, parse_prefix).unwrap_or_default();
    }
    if let Some(field) = fields.get("slots") {
        backbone.slots = reader.integer_u32(&field, 1..=limits::SLOTS_MAX);
    }
    if let Some(field) = fields.get("replicas") {
        let most = if broker == Some(Broker::Nats) { 5 } else { 15 };
        backbone.replicas = reader.integer_u32(&field, 1..=most);
    }
    // Nothing is returned that nobody asked for.
    url_field.filter(|_| broker.is_some()).map(|_| backbone)
}

fn read_url(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Backbone> {
    let text = reader.text(field)?;
    let read = BackboneUrl::parse_with_credentials(&text.value).and_then(|(url, info)| {
        let written_out = info.is_some() && !names_its_secret(&text.written);
        let info = info.map(|info| credentials_of(info, url.broker(), &text.written)).transpose()?;
        Ok((Backbone { credentials: info, ..url.into() }, written_out))
    });
    match read {
        Ok((_, true)) => {
            let what = format!("`{}` holds a secret itself, and files only name them", field.path);
            reader.fault(field.node.place, what, secret::MEND);
            None
        }
        Ok((backbone, false)) => Some(backbone),
        Err(reason) => {
            reader.fault_of_text(field, &text, &reason);
            None
        }
    }
}

/// Whether the password of a URL, or its token, comes from a variable.
fn names_its_secret(written: &str) -> bool {
    let before = written.rsplit_once('@').map_or(written, |(before, _)| before);
    let info = before.split_once("//").map_or(before, |(_, info)| info);
    // `${env:NAME}` has a colon of its own.
    let hidden = info.replace("${env:", "${env;");
    hidden.split_once(':').map_or(hidden.as_str(), |(_, password)| password).contains("${env;")
}

fn read_credentials(reader: &mut Reader<'_>, field: &Field<'_>, broker: Option<Broker>) -> Option<Credentials> {
    let fields = reader.map(field, &["user", "password", "mechanism", "token", "nkey", "file"])?;
    let mut fits = true;
    for key in ["mechanism", "token", "nkey", "file"] {
        let Some(field) = fields.get(key) else { continue };
        let of = if key == "mechanism" { Broker::Kafka } else { Broker::Nats };
        if broker.is_some_and(|broker| broker != of) {
            let what = format!("`{}` is of {}, and the backbone is another", field.path, of.name());
            reader.fault(field.key_place, what, "remove it, and write `user` and `password`");
            fits = false;
        }
    }
    let kinds: Vec<&str> =
        ["password", "token", "nkey", "file"].into_iter().filter(|key| fields.get(key).is_some()).collect();
    if kinds.len() > 1 {
        let what = format!("`{}` has {} beside each other", field.path, kinds.join(" and "));
        reader.fault(field.key_place, what, "keep one of them");
        fits = false;
    }
    let credentials = if let Some(token) = fields.get("token") {
        secret::read(reader, &token).map(Credentials::Token)
    } else if let Some(seed) = fields.get("nkey") {
        secret::read(reader, &seed).map(Credentials::Nkey)
    } else if let Some(file) = fields.get("file") {
        read_file(reader, &file).map(Credentials::File)
    } else {
        read_password(reader, &fields)
    };
    credentials.filter(|_| fits)
}

fn read_password(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Credentials> {
    let user = fields.require(reader, "user", "tidegate").and_then(|field| reader.text(&field));
    let password = fields.require(reader, "password", "{secretKeyRef: {name: NAME}}");
    let password = password.and_then(|field| secret::read(reader, &field));
    let mechanism = match fields.get("mechanism") {
        Some(field) => reader.choice(&field, &Mechanism::ALL)?,
        None => Mechanism::default(),
    };
    Some(Credentials::Password { user: user?.value, password: password?, mechanism })
}

fn read_tls(reader: &mut Reader<'_>, field: &Field<'_>, url: &BackboneUrl) -> Option<Tls> {
    let fields = reader.map(field, &["ca", "certificate", "key"])?;
    if let BackboneUrl::Broker { broker, tls: false, .. } = url {
        let what = format!("`{}` is about TLS, and the backbone is not reached over it", field.path);
        reader.fault(
            field.key_place,
            what,
            format!("write `{}://` in the URL, or remove the key", broker.tls_scheme()),
        );
    }
    let mut file = |key: &str| fields.get(key).and_then(|field| read_file(reader, &field));
    let (ca, certificate, key) = (file("ca"), file("certificate"), file("key"));
    for (here, other) in [("certificate", "key"), ("key", "certificate")] {
        if fields.get(here).is_some() && fields.get(other).is_none() {
            let what = format!("`{}` has a `{here}` without its `{other}`", field.path);
            reader.fault(field.key_place, what, format!("add `{other}: FILE`, or remove `{here}`"));
        }
    }
    Some(Tls { ca, identity: certificate.zip(key) })
}

/// A file that is there. What it holds is the broker's client to judge.
fn read_file(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<PathBuf> {
    let reads_files = reader.reads_files;
    reader.parsed(field, |text| {
        if reads_files && !std::fs::metadata(Path::new(text)).is_ok_and(|metadata| metadata.is_file()) {
            return Err("is no file that is there; name one that the gateway may read");
        }
        Ok(PathBuf::from(text))
    })
}

fn parse_namespace(text: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=limits::NAMESPACE_BYTES).contains(&text.len()) && text.bytes().all(legal) {
        return Ok(text.to_owned());
    }
    Err(format!("is no namespace; write 1 to {} letters, digits, `-` or `_`", limits::NAMESPACE_BYTES))
}

fn parse_prefix(text: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.len() <= limits::TOPIC_PREFIX_BYTES
        && text.bytes().all(legal)
        && !text.starts_with('.')
        && !text.contains("..")
    {
        return Ok(text.to_owned());
    }
    Err(format!(
        "is no prefix of a topic; write at most {} letters, digits, `-`, `_` or `.`, for example `mesh.`",
        limits::TOPIC_PREFIX_BYTES
    ))
}

#[cfg(test)]
mod tests;
