//! NATS JetStream as the backbone.
