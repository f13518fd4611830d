//! The compose files are YAML that says of each service what it is, how its health is asked, and which version it is of.

use std::collections::BTreeMap;
use std::path::Path;

use granit_parser::{Event, Parser};

use crate::files;

/// As much of YAML as a compose file uses.
#[derive(Clone, Debug)]
enum Node {
    Text(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
}

impl Node {
    /// A value of a map; merged maps come after its own.
    fn get(&self, key: &str) -> Option<&Node> {
        let Self::Map(map) = self else { return None };
        map.get(key).or_else(|| map.get("<<")?.get(key))
    }

    fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }

    fn texts(&self) -> Vec<&str> {
        if let Self::List(list) = self { list.iter().map(Self::text).collect() } else { Vec::new() }
    }
}

type Events<'a> = dyn Iterator<Item = Event<'a>> + 'a;

/// The next value, or none at the end of the list or map that it stands in.
fn read(events: &mut Events<'_>, anchors: &mut BTreeMap<usize, Node>) -> Option<Node> {
    let mut event = events.next()?;
    while matches!(event, Event::StreamStart | Event::DocumentStart(..)) {
        event = events.next()?;
    }
    let (anchor, node) = match event {
        Event::Scalar(text, _, anchor, _) => (anchor, Node::Text(text.into_owned())),
        Event::Alias(anchor) => return anchors.get(&anchor).cloned(),
        Event::SequenceStart(_, anchor, _) => {
            let mut list = Vec::new();
            while let Some(node) = read(events, anchors) {
                list.push(node);
            }
            (anchor, Node::List(list))
        }
        Event::MappingStart(_, anchor, _) => {
            let mut map = BTreeMap::new();
            while let Some(key) = read(events, anchors) {
                map.insert(key.text().to_owned(), read(events, anchors).expect("a key has a value"));
            }
            (anchor, Node::Map(map))
        }
        _ => return None,
    };
    anchors.insert(anchor, node.clone());
    Some(node)
}

#[test]
fn compose_files_name_versions_and_check_health() {
    let mut faults = Vec::new();
    let mut services_seen = 0;
    let dockerfile = files::read(Path::new("deploy/Dockerfile"));
    // What the image has beside the features that are on by default.
    let features: Vec<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("RUN cargo build ")?.split_once("--features "))
        .flat_map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default().split(','))
        .collect();
    for path in files::with_extension("yaml").iter().filter(|path| path.starts_with("deploy/compose")) {
        let text = files::read(path);
        let mut fault = None;
        let mut events = Parser::new_from_str(&text).map_while(|event| match event {
            Ok((event, _)) => Some(event),
            Err(error) => {
                fault = Some(format!("{}: {error}", path.display()));
                None
            }
        });
        let root = read(&mut events, &mut BTreeMap::new());
        drop(events);
        faults.extend(fault);
        let Some(Node::Map(services)) = root.as_ref().and_then(|root| root.get("services")) else {
            // The configuration that the gateways read.
            if !path.ends_with("gateway.yaml") {
                faults.push(format!("{} has no services", path.display()));
            }
            continue;
        };
        for (name, service) in services {
            services_seen += 1;
            let place = format!("{}: {name}", path.display());
            let image = service.get("image").map(Node::text).unwrap_or_default();
            if service.get("build").is_none() && !image.contains(':') {
                faults.push(format!("{place} has an image without a version: {image:?}"));
            }
            let backbone = service.get("environment").and_then(|environment| environment.get("TIDEGATE_BACKBONE"));
            if let Some((scheme, _)) = backbone.and_then(|url| url.text().split_once("://")) {
                let feature = if scheme == "amqp" { "rabbitmq" } else { scheme };
                if feature != "nats" && !features.contains(&feature) {
                    faults.push(format!(
                        "{place} is on {scheme}, and the image is built without {feature}: {features:?}"
                    ));
                }
            }
            let test = service.get("healthcheck").and_then(|health| health.get("test")).map(Node::texts);
            if test.as_ref().and_then(|test| test.first().copied()) != Some("CMD") {
                faults.push(format!("{place} has no check of its health: {test:?}"));
            }
            let Some(Node::Map(awaited)) = service.get("depends_on") else { continue };
            for (other, how) in awaited {
                let healthy = how.get("condition").map(Node::text) == Some("service_healthy");
                if !healthy || !services.contains_key(other) {
                    faults.push(format!("{place} does not wait for {other} to be healthy"));
                }
            }
        }
    }
    files::assert_none("compose files", &faults);
    assert!(services_seen >= 10, "{services_seen} services were read");
}
