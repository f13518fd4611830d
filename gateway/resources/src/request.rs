//! How the requests to a sink over HTTP are made: `signing`, `headers`, `handshake`, `tls` and `delivery.mode` of a
//! subscription.

use std::fmt;
use std::io::Read as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use tidegate_schemas::limits;
use tidegate_schemas::webhook::SigningKey;

use super::reader::{Field, Fields, Reader};
use super::secret::{self, Secret};
use super::sink::Sink;
use super::yaml::Content;

/// The keys of a subscription's `spec` that are read here.
pub(super) const KEYS: [&str; 4] = ["signing", "headers", "handshake", "tls"];

/// How an event stands in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Its attributes in headers, its data as the body.
    #[default]
    Binary,
    /// All of it as a JSON document.
    Structured,
}

/// How requests are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// How the event stands in them; structured wherever they are signed, because a signature covers the body only.
    pub mode: Mode,
    /// The keys that sign them by Standard Webhooks, in their order; every one is a key ([`SigningKey::parse`]).
    pub signing: Vec<Secret>,
    /// What is added to their header.
    pub headers: Vec<Header>,
    /// Whether the sink is asked for its consent first.
    pub handshake: Option<Handshake>,
    /// The certificates that are trusted in place of the machine's.
    pub trust: Option<Authorities>,
}

/// A header with a value that is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name, in small letters.
    pub name: HeaderName,
    /// Its value, which is a header value.
    pub value: Secret,
}

/// The question for consent (CloudEvents HTTP web hooks, section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Who asks: a name of the DNS that stands for all gateways of a system.
    pub origin: String,
    /// The requests per minute that are asked for.
    pub rate: Option<NonZeroU32>,
}

/// Certificates of authorities.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    /// The file, as it is written.
    pub file: String,
    /// Each as DER; at least one.
    pub certificates: Arc<[Vec<u8>]>,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authorities").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Reads what stands beside the sink. `mode` is the one that is written, if one is.
pub(super) fn read(
    reader: &mut Reader<'_>,
    spec: &Fields<'_>,
    sink: Option<&Sink>,
    mode: Option<(Mode, Field<'_>)>,
) -> Option<Request> {
    let mut request = Request::default();
    if let Some(sink @ (Sink::Topic(_) | Sink::Binding(_))) = sink {
        let is = if let Sink::Topic(_) = sink { "topic" } else { "binding" };
        let fields = KEYS.iter().filter_map(|key| spec.get(key)).chain(mode.map(|(_, field)| field));
        let mut fits = true;
        for field in fields {
            let what = format!("`{}` is about requests, and the sink is a {is}", field.path);
            reader.fault(field.key_place, what, "remove it, or send the events to a sink of http or https");
            fits = false;
        }
        return fits.then_some(request);
    }
    let faults = reader.faults();
    if let Some(field) = spec.get("signing") {
        request.signing = read_signing(reader, &field).unwrap_or_default();
    }
    if let Some(field) = spec.get("headers") {
        request.headers = read_headers(reader, &field).unwrap_or_default();
    }
    if let Some(field) = spec.get("handshake") {
        request.handshake = read_handshake(reader, &field);
    }
    if let Some(field) = spec.get("tls") {
        request.trust = read_tls(reader, &field, sink);
    }
    request.mode = match mode {
        Some((Mode::Binary, field)) if spec.get("signing").is_some() => {
            let what = format!("`{}: binary` cannot be signed: a signature covers the body only", field.path);
            reader.fault(field.node.place, what, "write `structured`, or remove the key");
            Mode::Structured
        }
        Some((mode, _)) => mode,
        None if request.signing.is_empty() => Mode::Binary,
        None => Mode::Structured,
    };
    (reader.faults() == faults).then_some(request)
}

fn read_signing(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Vec<Secret>> {
    let fields = reader.map(field, &["secrets"])?;
    let list = fields.require(reader, "secrets", "[\"${env:WEBHOOK_SECRET}\"]")?;
    let items = reader.list(&list)?;
    if items.len() > limits::WEBHOOK_KEYS {
        let what = format!("`{}` has {} keys, and {} are allowed", list.path, items.len(), limits::WEBHOOK_KEYS);
        reader.fault(list.node.place, what, "remove those that no receiver needs any more");
        return None;
    }
    let mut secrets: Vec<Secret> = Vec::new();
    for item in &items {
        let Some(secret) = secret::read(reader, item) else { continue };
        if let Err(fault) = SigningKey::parse(secret.expose()) {
            let fault = fault.to_string();
            let (what, mend) = fault.split_once("; ").unwrap_or((&fault, "check the secret"));
            let what = format!("`{}`: the secret that `{}` stands for {what}", item.path, secret.named());
            reader.fault(item.node.place, what, mend);
        } else if secrets.iter().any(|other| other.expose() == secret.expose()) {
            reader.fault(item.node.place, format!("`{}` is the same key as one before it", item.path), "remove one");
        } else {
            secrets.push(secret);
        }
    }
    Some(secrets)
}

/// Headers that the gateway sets itself, or that belong to a connection.
const OURS: [&str; 18] = [
    "accept",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "webhook-request-origin",
    "origin",
    "user-agent",
];
const OUR_PREFIXES: [&str; 3] = ["ce-", "webhook-", "tidegate-"];

/// Whether a header is there to carry what nobody else may know.
fn carries_credentials(name: &str) -> bool {
    matches!(name, "authorization" | "proxy-authorization" | "cookie")
        || ["-key", "-token", "-secret"].iter().any(|end| name.ends_with(end))
}

fn read_headers(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Vec<Header>> {
    let fields = reader.open_map(field)?;
    let mut headers: Vec<Header> = Vec::new();
    let mut bytes = 0;
    for (written, field) in fields.all() {
        let Ok(name) = written.to_ascii_lowercase().parse::<HeaderName>() else {
            let what = format!("`{}` is no name of a header", field.path);
            reader.fault(field.key_place, what, "write letters, digits and `-`");
            continue;
        };
        if OURS.contains(&name.as_str()) || OUR_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix)) {
            reader.fault(field.key_place, format!("`{}` is set by the gateway", field.path), "remove it");
            continue;
        }
        if headers.iter().any(|header| header.name == name) {
            reader.fault(field.key_place, format!("`{}` is written twice", field.path), "remove one");
            continue;
        }
        let is_plain = matches!(&field.node.content, Content::Scalar { text, .. } if !text.contains("${env:"));
        let value = if is_plain && !carries_credentials(name.as_str()) {
            reader.text(&field).map(|text| Secret::written_out(text.value))
        } else {
            secret::read(reader, &field)
        };
        let Some(value) = value else { continue };
        if HeaderValue::from_str(value.expose()).is_err() {
            let what = format!("`{}` has a value that no header can have", field.path);
            reader.fault(field.node.place, what, "use printable ASCII without a line break");
            continue;
        }
        bytes += name.as_str().len() + value.expose().len();
        headers.push(Header { name, value });
    }
    if headers.len() > limits::SINK_HEADERS || bytes > limits::SINK_HEADERS_BYTES {
        let (most, most_bytes) = (limits::SINK_HEADERS, limits::SINK_HEADERS_BYTES);
        let what = format!("`{}` has {} headers of {bytes} bytes", field.path, headers.len());
        reader.fault(field.key_place, what, format!("write at most {most} of {most_bytes} bytes together"));
        return None;
    }
    Some(headers)
}

fn read_handshake(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Handshake> {
    let fields = reader.map(field, &["origin", "rate"])?;
    let origin = fields.require(reader, "origin", "events.example.com");
    let origin = origin.and_then(|field| reader.parsed(&field, parse_origin));
    let rate = fields.get("rate").and_then(|field| reader.integer_u32(&field, 1..=limits::HANDSHAKE_RATE_MAX));
    Some(Handshake { origin: origin?, rate: rate.and_then(NonZeroU32::new) })
}

/// A name of the DNS.
fn parse_origin(text: &str) -> Result<String, &'static str> {
    let is_label = |label: &str| {
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && edge(label.bytes().next())
            && edge(label.bytes().last())
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err("is no name of the DNS; write the one that stands for your gateways, for example `events.example.com`")
}

fn read_tls(reader: &mut Reader<'_>, field: &Field<'_>, sink: Option<&Sink>) -> Option<Authorities> {
    if let Some(Sink::Http(http)) = sink
        && http.uri().scheme_str() != Some("https")
    {
        let what = format!("`{}` is about TLS, and the sink is not called over https", field.path);
        reader.fault(field.key_place, what, "call the sink over https, or remove the key");
        return None;
    }
    let fields = reader.map(field, &["ca"])?;
    let ca = fields.require(reader, "ca", "./ca.pem")?;
    let text = reader.text(&ca)?;
    if !reader.reads_files {
        return Some(Authorities { file: text.written, certificates: Arc::default() });
    }
    let path = beside(&reader.file, Path::new(&text.value));
    match read_certificates(&path) {
        Ok(certificates) => Some(Authorities { file: text.written, certificates }),
        Err(reason) => {
            reader.fault_of_text(&ca, &text, &reason);
            None
        }
    }
}

/// A path as it is meant in a resource file: from the folder of that file.
fn beside(file: &str, path: &Path) -> PathBuf {
    Path::new(file).parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

fn read_certificates(path: &Path) -> Result<Arc<[Vec<u8>]>, String> {
    const MEND: &str = "name a file in PEM form with the certificates of the authorities that you trust";
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}; {MEND}");
    // Anything but a file could be read without end, or never.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("is no file; {MEND}"));
    }
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(limits::SINK_CA_BYTES as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() > limits::SINK_CA_BYTES {
        return Err(format!("has more than {} bytes; {MEND}", limits::SINK_CA_BYTES));
    }
    let certificates = certificates(&text).ok_or_else(|| format!("holds a certificate that cannot be read; {MEND}"))?;
    if certificates.is_empty() {
        return Err(format!("holds no certificate; {MEND}"));
    }
    Ok(certificates.into())
}

/// The certificates of a text in PEM form (RFC 7468); nothing where one of them is damaged.
fn certificates(text: &str) -> Option<Vec<Vec<u8>>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut certificates = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once(BEGIN) {
        let (body, after) = behind.split_once(END)?;
        let body: String = body.split_ascii_whitespace().collect();
        certificates.push(STANDARD.decode(body).ok().filter(|der| !der.is_empty())?);
        rest = after;
    }
    Some(certificates)
}

#[cfg(test)]
mod tests;
