//! Apache Kafka as the backbone.
