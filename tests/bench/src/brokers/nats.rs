//! A JetStream stream by async-nats.

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{self, Context, stream};
use futures_util::StreamExt as _;
use tidegate_backbone::{BoxFuture, Record};

use super::bare::Bare;
use super::{HANG, Operation};
use crate::Failure;

pub(super) struct Stream {
    context: Context,
    name: String,
}

impl Stream {
    pub(super) async fn create(url: &str, name: &str) -> Result<Self, Failure> {
        let context = jetstream::new(async_nats::connect(url).await?);
        let config = stream::Config {
            name: name.to_owned(),
            subjects: vec![name.to_owned()],
            num_replicas: 1,
            ..stream::Config::default()
        };
        context.create_stream(config).await?;
        Ok(Self { context, name: name.to_owned() })
    }
}

impl Bare for Stream {
    fn append(&self, record: Record) -> Operation {
        let (mut headers, body) = (
            HeaderMap::new(),
            match record {
                Record::Frame(bytes) => (Vec::new(), bytes),
                Record::Event(event) => {
                    let written = tidegate_schemas::nats::write(&event);
                    (written.headers, written.body)
                }
            },
        );
        for (name, value) in &body.0 {
            headers.insert(&**name, &**value);
        }
        let (context, name, body) = (self.context.clone(), self.name.clone(), body.1);
        Arc::new(move |_| {
            let (context, name, headers, body) = (context.clone(), name.clone(), headers.clone(), body.clone());
            Box::pin(async move {
                let acknowledged = if headers.is_empty() {
                    context.publish(name, body).await?
                } else {
                    context.publish_with_headers(name, headers, body).await?
                };
                acknowledged.await?;
                Ok(())
            })
        })
    }

    fn read(&self, count: usize) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let config = pull::Config {
                ack_policy: AckPolicy::None,
                deliver_policy: DeliverPolicy::All,
                ..pull::Config::default()
            };
            let stream = self.context.get_stream(&self.name).await?;
            let mut messages = stream.create_consumer(config).await?.messages().await?;
            for _ in 0..count {
                let next = tokio::time::timeout(HANG, messages.next()).await?;
                next.ok_or("the consumer has ended")??;
            }
            Ok(())
        })
    }
}
