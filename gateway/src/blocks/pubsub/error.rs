use tidegate_backbone::catalogue::ChangeError;
use tidegate_routing::TopicName;

/// Why there is no topic to publish to.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is none of that name, and it is not created on first use.
    #[error("there is no topic {0}; create it with `tidegate topics create {0}` or declare it in a resource file")]
    UnknownTopic(TopicName),
    /// The name belongs to the gateway.
    #[error("the topic {0} belongs to the gateway; choose a name that does not begin with tidegate. or state.")]
    Reserved(TopicName),
    /// It could not be created.
    #[error(transparent)]
    Create(#[from] ChangeError),
}
