//! `spec.telemetry`: log lines and traces.

use std::fmt;

use http::{HeaderName, HeaderValue, Uri};

use crate::reader::{Field, Reader};

/// What the process tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// The least level of log lines that are written.
    pub log_level: LogLevel,
    /// How they are written.
    pub log_format: LogFormat,
    /// Where traces go; nowhere where this is not set.
    pub otlp: Option<Otlp>,
}

/// The level of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// What needs somebody's hand.
    Error,
    /// What will, if it goes on.
    Warn,
    /// What happens rarely and changes something.
    #[default]
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    const ALL: [(&'static str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    /// The level as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A collector that takes traces by OTLP, as protobuf over HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Otlp {
    /// Its URL, to which `/v1/traces` is added.
    pub endpoint: String,
    /// What is sent with each request, names in lower case. Never shown: credentials are among it.
    pub headers: Vec<(String, String)>,
    /// Which part of the traces is recorded that begin here; all where this is not set.
    pub sampling: Option<Ratio>,
}

impl fmt::Debug for Otlp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.headers.iter().map(|(name, _)| name).collect();
        formatter
            .debug_struct("Otlp")
            .field("endpoint", &self.endpoint)
            .field("headers", &names)
            .field("sampling", &self.sampling)
            .finish()
    }
}

/// A part of a whole, exact to a millionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio(u32);

impl Ratio {
    const WHOLE: u32 = 1_000_000;

    /// The ratio of a number from 0 to 1.
    pub fn new(number: f64) -> Option<Self> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number from 0 to 1,000,000 after the check"
        )]
        (0.0..=1.0).contains(&number).then(|| Self((number * f64::from(Self::WHOLE)).round() as u32))
    }

    /// As a number from 0 to 1.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }
}

pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>, telemetry: &mut Telemetry) -> Option<()> {
    let fields = reader.map(field, &["log", "otlp"])?;
    if let Some(field) = fields.get("log")
        && let Some(log) = reader.map(&field, &["level", "format"])
    {
        if let Some(field) = log.get("level") {
            telemetry.log_level = reader.choice(&field, &LogLevel::ALL).unwrap_or_default();
        }
        if let Some(field) = log.get("format") {
            let choices = [("text", LogFormat::Text), ("json", LogFormat::Json)];
            telemetry.log_format = reader.choice(&field, &choices).unwrap_or_default();
        }
    }
    if let Some(field) = fields.get("otlp") {
        telemetry.otlp = read_otlp(reader, &field);
    }
    Some(())
}

fn read_otlp(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Otlp> {
    let fields = reader.map(field, &["endpoint", "headers", "sampling"])?;
    let endpoint = fields.require(reader, "endpoint", "http://127.0.0.1:4318");
    let endpoint = endpoint.and_then(|field| reader.parsed(&field, parse_endpoint));
    let mut headers = Vec::new();
    if let Some(field) = fields.get("headers")
        && let Some(fields) = reader.open_map(&field)
    {
        for (name, field) in fields.all() {
            headers.extend(read_header(reader, name, &field));
        }
    }
    let sampling = match fields.get("sampling") {
        Some(field) => Some(reader.ratio(&field)?),
        None => None,
    };
    Some(Otlp { endpoint: endpoint?, headers, sampling })
}

fn read_header(reader: &mut Reader<'_>, name: &str, field: &Field<'_>) -> Option<(String, String)> {
    let lower = name.to_ascii_lowercase();
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        reader.fault(field.key_place, format!("`{}` is no name of a header", field.path), "correct the name");
        return None;
    }
    let text = reader.text(field)?;
    let secret =
        ["authorization", "cookie", "token", "secret", "key", "password"].iter().any(|word| lower.contains(word));
    if secret && !text.is_substituted() {
        reader.fault(
            field.node.place,
            format!("`{}` holds a secret", field.path),
            "write it as `${env:NAME}` and set that variable in the environment of the gateway",
        );
        return None;
    }
    if HeaderValue::from_str(&text.value).is_err() {
        reader.fault_of_text(field, &text, &"is no value of a header; remove characters that are not printable ASCII");
        return None;
    }
    Some((lower, text.value))
}

fn parse_endpoint(text: &str) -> Result<String, &'static str> {
    const MEND: &str = "is no URL of a collector; write for example `http://127.0.0.1:4318`";
    let uri: Uri = text.parse().map_err(|_| MEND)?;
    let named = uri.host().is_some_and(|host| !host.is_empty());
    if !matches!(uri.scheme_str(), Some("http" | "https")) || !named || uri.query().is_some() {
        return Err(MEND);
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("carries user information; write credentials as a header, below `headers`");
    }
    Ok(text.to_owned())
}
