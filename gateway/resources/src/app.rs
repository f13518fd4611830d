//! The kind `App`: an application, where it answers, and how its health is seen.

use std::time::Duration;

use http::Uri;

use super::Origin;
use super::document::Header;
use super::reader::{Field, Reader};
use super::sink::parse_http_url;

/// An application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its app id.
    pub name: String,
    /// Where it is written.
    pub origin: Origin,
    /// The base addresses of its instances, without a path; at least one.
    pub endpoints: Vec<Uri>,
    /// How its health is asked for; nothing where it counts as healthy.
    pub health: Option<Health>,
}

/// How the health of an application is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The path that answers 2xx while the application is healthy.
    pub path: String,
    /// The time between two questions.
    pub interval: Duration,
    /// The time for an answer.
    pub timeout: Duration,
    /// Questions in a row without a good answer that make it unhealthy.
    pub threshold: u32,
}

pub(super) fn read(reader: &mut Reader<'_>, header: Header<'_>) -> Option<App> {
    let spec = header.required_spec(reader, &["endpoints", "health"])?;
    reader.warn(
        header.name_place,
        format!("the app `{}` is read, and nothing in this version calls it", header.name),
        "subscribe its address with `sink: http://…`",
    );
    let endpoints = spec.require(reader, "endpoints", "[http://127.0.0.1:8000]").and_then(|field| {
        let items = reader.list(&field)?;
        let endpoints: Vec<_> = items.iter().filter_map(|item| reader.parsed(item, parse_endpoint)).collect();
        (endpoints.len() == items.len()).then_some(endpoints)
    });
    let health = spec.get("health").map(|field| read_health(reader, &field));
    let health = match health {
        Some(health) => Some(health?),
        None => None,
    };
    Some(App { name: header.name, origin: header.origin, endpoints: endpoints?, health })
}

fn parse_endpoint(text: &str) -> Result<Uri, String> {
    let uri = parse_http_url(text)?;
    if uri.path() != "/" || uri.query().is_some() {
        return Err(
            "has a path, and an endpoint is an address only; write for example `http://127.0.0.1:8000`".to_owned()
        );
    }
    Ok(uri)
}

fn read_health(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Health> {
    let fields = reader.map(field, &["path", "interval", "timeout", "threshold"])?;
    let mut health = Health {
        path: "/healthz".to_owned(),
        interval: Duration::from_secs(5),
        timeout: Duration::from_millis(500),
        threshold: 3,
    };
    if let Some(field) = fields.get("path") {
        let check = |text: &str| match text.strip_prefix('/') {
            Some(_) if text.parse::<http::uri::PathAndQuery>().is_ok() => Ok(text.to_owned()),
            _ => Err("is no path; begin it with `/` and percent-encode what a URL may not hold"),
        };
        health.path = reader.parsed(&field, check).unwrap_or(health.path);
    }
    let least = Duration::from_millis(1);
    if let Some(field) = fields.get("interval") {
        health.interval = reader.duration(&field, least..=Duration::from_secs(60 * 60)).unwrap_or(health.interval);
    }
    if let Some(field) = fields.get("timeout") {
        health.timeout = reader.duration(&field, least..=Duration::from_secs(60)).unwrap_or(health.timeout);
    }
    if let Some(field) = fields.get("threshold") {
        health.threshold = reader.integer_u32(&field, 1..=100).unwrap_or(health.threshold);
    }
    Some(health)
}
