use http::StatusCode;

/// Declares the one table of codes, so that a code cannot exist without its status and title.
macro_rules! codes {
    ($($(#[$meta:meta])* $variant:ident = $name:literal, $status:ident, $title:literal;)*) => {
        /// What went wrong, as a name that clients may rely on: it never changes its meaning. `docs/errors.md` has a
        /// line for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $(#[$meta])* $variant,)*
        }

        impl Code {
            /// Every code, in the order of its status.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that the `code` member carries.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// What the code means, the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    MalformedRequest = "malformed-request", BAD_REQUEST, "The request cannot be read.";
    AmbiguousFraming = "ambiguous-framing", BAD_REQUEST, "The request gives its length in two ways.";
    AmbiguousPath = "ambiguous-path", BAD_REQUEST, "The path can be read in more than one way.";
    InvalidHost = "invalid-host", BAD_REQUEST, "The request does not name its host exactly once.";
    InvalidArgument = "invalid-argument", BAD_REQUEST, "A parameter has a value that it cannot have.";
    InvalidEvent = "invalid-event", BAD_REQUEST, "The event is not a valid CloudEvent.";
    InvalidResource = "invalid-resource", BAD_REQUEST, "The resource is not valid.";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "The request carries no valid credentials.";
    Forbidden = "forbidden", FORBIDDEN, "The credentials do not allow this.";
    ForeignHost = "foreign-host", FORBIDDEN, "The request names a host that this gateway does not answer for.";
    ForeignOrigin = "foreign-origin", FORBIDDEN, "The request comes from a web page of another site.";
    NotFound = "not-found", NOT_FOUND, "There is nothing at this path.";
    TopicNotFound = "topic-not-found", NOT_FOUND, "There is no such topic.";
    SubscriptionNotFound = "subscription-not-found", NOT_FOUND, "There is no such subscription.";
    BindingNotFound = "binding-not-found", NOT_FOUND, "There is no such binding.";
    AppNotFound = "app-not-found", NOT_FOUND, "There is no such app.";
    StoreNotFound = "store-not-found", NOT_FOUND, "There is no such state store.";
    KeyNotFound = "key-not-found", NOT_FOUND, "The store holds no such key.";
    EventNotFound = "event-not-found", NOT_FOUND, "No such event is known, or no longer.";
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "The path does not have this method.";
    NotAcceptable = "not-acceptable", NOT_ACCEPTABLE, "None of the accepted media types can be given.";
    BodyTooSlow = "body-too-slow", REQUEST_TIMEOUT, "The body of the request came too slowly.";
    Conflict = "conflict", CONFLICT, "What is there differs from what the request expects.";
    OwnedByFile = "owned-by-file", CONFLICT, "The resource belongs to a file and changes only there.";
    PositionLost = "position-lost", GONE, "The position was trimmed.";
    PreconditionFailed = "precondition-failed", PRECONDITION_FAILED, "A precondition of the request does not hold.";
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, "The body of the request is too large.";
    EventTooLarge = "event-too-large", PAYLOAD_TOO_LARGE, "The event is too large to be carried by every broker.";
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body's media type is not understood.";
    SchemaViolation = "schema-violation", UNPROCESSABLE_ENTITY, "The event's data violates the topic's schema.";
    UpgradeRequired = "upgrade-required", UPGRADE_REQUIRED, "The path speaks WebSocket only.";
    TooManyRequests = "too-many-requests", TOO_MANY_REQUESTS, "The client sends more than it may.";
    HeadersTooLarge = "headers-too-large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request's header is too large.";
    Internal = "internal", INTERNAL_SERVER_ERROR, "The gateway failed.";
    DataLoss = "data-loss", INTERNAL_SERVER_ERROR, "Records that were acknowledged are gone or damaged.";
    NotImplemented = "not-implemented", NOT_IMPLEMENTED, "The gateway does not do this.";
    BrokerRefused = "broker-refused", BAD_GATEWAY, "The broker refuses the gateway's credentials or operation.";
    BrokerMisconfigured = "broker-misconfigured", BAD_GATEWAY, "The broker is set up so that promises cannot be kept.";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The broker cannot be reached for now.";
    ShuttingDown = "shutting-down", SERVICE_UNAVAILABLE, "The gateway is shutting down.";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The gateway has as much in hand as it may.";
    TooManyConnections = "too-many-connections", SERVICE_UNAVAILABLE, "Too many connections are open.";
    NoResponder = "no-responder", SERVICE_UNAVAILABLE, "Nobody is there to answer.";
    OutcomeUnknown = "outcome-unknown", GATEWAY_TIMEOUT, "The request may have had its effect, or may still have it.";
    DeadlineExceeded = "deadline-exceeded", GATEWAY_TIMEOUT, "No answer came before the deadline.";
    StorageFull = "storage-full", INSUFFICIENT_STORAGE, "The disk is full.";
}
