//! The kind `Broker`: a broker beside the backbone, whose topics can be attached.
//!
//! ```yaml
//! apiVersion: tidegate.dev/v1
//! kind: Broker
//! metadata: {name: eu}
//! spec:
//!   url: kafka+ssl://kafka-1:9093
//!   credentials: {user: mesh, password: {secretKeyRef: {name: EU_PASSWORD}}}
//!   tls: {ca: /etc/tidegate/eu.pem}
//! ```
//!
//! Its settings are those of a `Gateway`'s backbone, but for what concerns the cluster of gateways: `url`, `credentials`, `tls`,
//! `namespace`, `topicPrefix` ([`Backbone`]). An embedded log can be declared as well: it belongs to one process, so that no
//! topic is attached to it, and a backbone can be migrated to it.

use super::Origin;
use super::config::{Backbone, backbone};
use super::document::Header;
use super::reader::Reader;

/// A broker beside the backbone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its name, by which topics say that they are on it.
    pub name: String,
    /// Where it is written.
    pub origin: Origin,
    /// Where it is, and how it is reached.
    pub settings: Backbone,
}

pub(super) fn read(reader: &mut Reader<'_>, header: Header<'_>) -> Option<Broker> {
    if !reader.reads_files {
        reader.fault(
            header.name_place,
            format!(
                "the broker `{}` is no resource of requests, because it names secrets and files of a gateway",
                header.name
            ),
            "declare it in the resource files of every gateway",
        );
        return None;
    }
    let Some(spec) = &header.spec else {
        reader.fault(header.place, "`spec` is missing", "add a `spec:` with the `url` of the broker below it");
        return None;
    };
    let settings = backbone::read_broker(reader, spec)?;
    Some(Broker { name: header.name, origin: header.origin, settings })
}
