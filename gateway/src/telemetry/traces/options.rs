//! Where spans go and which of them: the configuration of the gateway, and the variables that OpenTelemetry defines for
//! every program. A variable goes before the configuration.
//!
//! | variable | says |
//! |---|---|
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_EXPORTER_OTLP_ENDPOINT` | where to; the second gains `/v1/traces` |
//! | `OTEL_EXPORTER_OTLP_TRACES_HEADERS`, `OTEL_EXPORTER_OTLP_HEADERS` | `name=value,name=value`, percent-encoded |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | what the process calls itself (`tidegate` by default) |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | which spans: `parentbased_always_on` by default |
//! | `OTEL_SDK_DISABLED=true`, `OTEL_TRACES_EXPORTER=none` | none |

use std::fmt;

use http::{HeaderName, HeaderValue, Uri};
use tidegate_resources::Variables;
use tidegate_resources::config::Otlp;

/// What is appended to an endpoint that is not for traces alone.
const TRACES_PATH: &str = "v1/traces";
/// The service name where nobody gives one.
const SERVICE_NAME: &str = "tidegate";

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Whether the decision of a parent is kept; if not, each span is decided by the ratio.
    pub parent_based: bool,
    /// The part of the traces that are recorded, from 0 to 1.
    pub ratio: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { parent_based: true, ratio: 1.0 }
    }
}

/// How spans are exported.
#[derive(Clone, PartialEq)]
pub struct Options {
    /// The whole URL.
    pub endpoint: String,
    /// Sent with each request. Never shown: they may hold credentials.
    pub headers: Vec<(String, String)>,
    /// Which traces.
    pub sampling: Sampling,
    /// `service.name`, where `OTEL_RESOURCE_ATTRIBUTES` does not say it.
    pub service_name: String,
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.headers.iter().map(|(name, _)| name).collect();
        formatter
            .debug_struct("Options")
            .field("endpoint", &self.endpoint)
            .field("headers", &names)
            .field("sampling", &self.sampling)
            .field("service_name", &self.service_name)
            .finish()
    }
}

/// A variable cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the variable {variable} {fault}")]
pub struct OptionsError {
    variable: &'static str,
    fault: String,
}

impl OptionsError {
    fn new(variable: &'static str, fault: impl Into<String>) -> Self {
        Self { variable, fault: fault.into() }
    }
}

impl Options {
    /// What the configuration and the variables come to; none where no endpoint is named, or traces are turned off.
    pub fn resolve(configured: Option<&Otlp>, variables: &Variables<'_>) -> Result<Option<Self>, OptionsError> {
        let set = |name: &str| variables(name).filter(|value| !value.trim().is_empty());
        let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
        if disabled || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value.trim() == "none") {
            return Ok(None);
        }
        let Some(endpoint) = endpoint(configured, &set)? else { return Ok(None) };
        let mut headers: Vec<(String, String)> = configured.map_or_else(Vec::new, |otlp| otlp.headers.clone());
        for variable in ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"] {
            if let Some(text) = set(variable) {
                for (name, value) in parse_headers(variable, &text)? {
                    headers.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
                    headers.push((name, value));
                }
                break;
            }
        }
        let sampling = match sampling(&set)? {
            Some(sampling) => sampling,
            None => Sampling {
                ratio: configured.and_then(|otlp| otlp.sampling).map_or(1.0, |ratio| ratio.as_f64()),
                ..Sampling::default()
            },
        };
        let service_name = set("OTEL_SERVICE_NAME").unwrap_or_else(|| SERVICE_NAME.to_owned());
        Ok(Some(Self { endpoint, headers, sampling, service_name }))
    }
}

fn endpoint(configured: Option<&Otlp>, set: &impl Fn(&str) -> Option<String>) -> Result<Option<String>, OptionsError> {
    for (variable, whole) in [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", true), ("OTEL_EXPORTER_OTLP_ENDPOINT", false)] {
        if let Some(text) = set(variable) {
            let text = text.trim();
            let uri = text.parse::<Uri>().ok();
            let usable = uri.is_some_and(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
            });
            if !usable {
                return Err(OptionsError::new(variable, format!("is no URL: {text:?}; write http://HOST:4318")));
            }
            return Ok(Some(if whole { text.to_owned() } else { with_path(text) }));
        }
    }
    Ok(configured.map(|otlp| with_path(&otlp.endpoint)))
}

/// The endpoint of traces below a base; one that says it already stays.
fn with_path(base: &str) -> String {
    let base = base.trim_end_matches('/');
    if base.ends_with(TRACES_PATH) { base.to_owned() } else { format!("{base}/{TRACES_PATH}") }
}

fn parse_headers(variable: &'static str, text: &str) -> Result<Vec<(String, String)>, OptionsError> {
    let mut headers = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let read = pair.split_once('=').and_then(|(name, value)| {
            let (name, value) = (name.trim(), decode(value.trim())?);
            HeaderName::from_bytes(name.as_bytes()).ok()?;
            HeaderValue::from_str(&value).ok()?;
            Some((name.to_ascii_lowercase(), value))
        });
        // The pair itself may be a secret.
        let number = headers.len() + 1;
        let fault =
            || OptionsError::new(variable, format!("has no header at pair {number}; write name=value,name=value"));
        headers.push(read.ok_or_else(fault)?);
    }
    Ok(headers)
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(decoded).ok()
}

fn sampling(set: &impl Fn(&str) -> Option<String>) -> Result<Option<Sampling>, OptionsError> {
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(sampler) = set(SAMPLER) else { return Ok(None) };
    let argument = || match set(ARGUMENT) {
        None => Ok(1.0),
        Some(text) => match text.trim().parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
            _ => Err(OptionsError::new(ARGUMENT, format!("is no ratio: {text:?}; write a number from 0 to 1"))),
        },
    };
    let (parent_based, ratio) = match sampler.trim() {
        "always_on" => (false, 1.0),
        "always_off" => (false, 0.0),
        "traceidratio" => (false, argument()?),
        "parentbased_always_on" => (true, 1.0),
        "parentbased_always_off" => (true, 0.0),
        "parentbased_traceidratio" => (true, argument()?),
        other => {
            let known = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, \
                         parentbased_traceidratio";
            return Err(OptionsError::new(SAMPLER, format!("names no sampler: {other:?}; write one of {known}")));
        }
    };
    Ok(Some(Sampling { parent_based, ratio }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn resolve(configured: Option<&Otlp>, variables: &[(&str, &str)]) -> Result<Option<Options>, String> {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        Options::resolve(configured, &|name| variables.get(name).map(|value| (*value).to_owned()))
            .map_err(|error| error.to_string())
    }

    fn endpoint_of(configured: Option<&Otlp>, variables: &[(&str, &str)]) -> Option<String> {
        resolve(configured, variables).unwrap().map(|options| options.endpoint)
    }

    fn configured() -> Otlp {
        Otlp {
            endpoint: "http://configured:4318/".to_owned(),
            headers: vec![("authorization".to_owned(), "Bearer c".to_owned())],
            sampling: None,
        }
    }

    #[test]
    fn nothing_is_traced_unless_an_endpoint_is_named() {
        assert_eq!(endpoint_of(None, &[]), None);
        assert_eq!(endpoint_of(None, &[("OTEL_SERVICE_NAME", "x"), ("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), None);
        let named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318");
        assert!(endpoint_of(None, &[named]).is_some());
        assert_eq!(endpoint_of(None, &[named, ("OTEL_SDK_DISABLED", "TRUE")]), None);
        assert_eq!(endpoint_of(Some(&configured()), &[("OTEL_TRACES_EXPORTER", "none")]), None);
    }

    #[test]
    fn endpoints_gain_the_path_of_traces_unless_they_are_for_traces() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318/base/");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4318/ingest");
        assert_eq!(endpoint_of(Some(&configured()), &[]).unwrap(), "http://configured:4318/v1/traces");
        assert_eq!(endpoint_of(Some(&configured()), &[base]).unwrap(), "http://h:4318/base/v1/traces");
        assert_eq!(endpoint_of(Some(&configured()), &[base, whole]).unwrap(), "http://t:4318/ingest");
    }

    #[test]
    fn headers_of_variables_go_before_those_of_the_configuration_and_are_never_shown() {
        let variables = [("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20secret, x-team = a%2Cb")];
        let options = resolve(Some(&configured()), &variables).unwrap().unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(options.headers, [pair("authorization", "Bearer secret"), pair("x-team", "a,b")]);
        assert!(!format!("{options:?}").contains("secret"));
        let faulty = [("OTEL_EXPORTER_OTLP_HEADERS", "a=b,hush hush")];
        let error = resolve(Some(&configured()), &faulty).unwrap_err();
        assert!(error.contains("pair 2") && !error.contains("hush"), "{error}");
    }

    #[test]
    fn samplers_are_those_of_opentelemetry() {
        let sampling = |sampler: &str, argument: &str| {
            let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318");
            let variables = [endpoint, ("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)];
            resolve(None, &variables).map(|options| {
                let sampling = options.unwrap().sampling;
                (sampling.parent_based, sampling.ratio)
            })
        };
        assert_eq!(sampling("", "0.5"), Ok((true, 1.0)));
        assert_eq!(sampling("always_off", ""), Ok((false, 0.0)));
        assert_eq!(sampling("parentbased_traceidratio", "0.25"), Ok((true, 0.25)));
        assert!(sampling("traceidratio", "25").unwrap_err().contains("OTEL_TRACES_SAMPLER_ARG"));
        assert!(sampling("jaeger_remote", "").unwrap_err().contains("jaeger_remote"));
    }

    #[test]
    fn an_endpoint_that_is_no_url_is_told() {
        for text in ["h:4318", "grpc://h:4317", "http://"] {
            let error = resolve(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", text)]).unwrap_err();
            assert!(error.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && error.contains("4318"), "{error}");
        }
    }
}
