//! The limits of the product, in one table with their units. Here, because every other crate may import this one.
//!
//! These are the defaults that product documentation names; a `Gateway` resource may change those of the listeners.

use std::time::Duration;

/// An event, attributes and payload together; small enough that every broker carries it.
pub const EVENT_BYTES: usize = 900 * 1024;
/// The names and values of an event's attributes.
pub const EVENT_ATTRIBUTES_BYTES: usize = 16 * 1024;
/// Attributes of an event, the required ones among them.
pub const EVENT_ATTRIBUTES: usize = 64;
/// Levels of nesting in a JSON text that is read.
pub const JSON_DEPTH: usize = 64;
/// The body of a request.
pub const REQUEST_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Events in one batch.
pub const BATCH_EVENTS: usize = 1_000;
/// The header block of a request.
pub const REQUEST_HEADERS_BYTES: usize = 32 * 1024;
/// Header fields of a request.
pub const REQUEST_HEADERS: usize = 100;
/// Open connections of all clients.
pub const CONNECTIONS: usize = 10_000;
/// Open connections of one client address.
pub const CONNECTIONS_PER_ADDRESS: usize = 1_000;
/// From the opening of a connection, or the first byte of a request, to the end of its header.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a body may take before its pace is judged.
pub const BODY_GRACE: Duration = Duration::from_secs(10);
/// The pace that a body must keep after [`BODY_GRACE`].
pub const BODY_BYTES_PER_SECOND: u64 = 1024;
/// A connection without a request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// From a publish to its receipt; beyond it the outcome is unknown.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// A topic's name.
pub const TOPIC_NAME_BYTES: usize = 180;
/// Partitions of one topic.
pub const TOPIC_PARTITIONS: u32 = 256;
/// One attempt of a delivery, from the connection to the last byte of the answer.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(15);
/// Opening a connection to a sink.
pub const SINK_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is read of a sink's answer.
pub const SINK_RESPONSE_BYTES: usize = 64 * 1024;
/// What a dead letter keeps of a sink's answer.
pub const CAUSE_EXCERPT_BYTES: usize = 1024;
/// How rarely a sink that cannot be reached is tried.
pub const SINK_PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Deliveries of one subscription that are out at once.
pub const DELIVERIES_IN_FLIGHT: u32 = 32;
/// Events of one subscription that wait in memory for a free place.
pub const DELIVERY_QUEUE_EVENTS: usize = 1_024;
/// The bytes of those events.
pub const DELIVERY_QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Keys of one subscription and topic partition that wait for a retry; beyond it the subscription reads no further.
pub const PARKED_KEYS: usize = 10_000;
/// Attempts of a delivery before it is dead-lettered.
pub const RETRY_ATTEMPTS: u32 = 20;
/// Age of the first attempt at which a delivery is dead-lettered.
pub const RETRY_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The first delay between attempts, before jitter.
pub const RETRY_INITIAL: Duration = Duration::from_secs(1);
/// The longest delay between attempts, before jitter.
pub const RETRY_MAX: Duration = Duration::from_secs(60 * 60);
/// Appended how long before an event of the same source and id makes it a duplicate.
pub const DEDUPE_WINDOW: Duration = Duration::from_secs(2 * 60);
/// Events that a duplicate is looked for among, whatever their age.
pub const DEDUPE_EVENTS: usize = 100_000;
/// How often delivery progress is journalled at most.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(250);
/// How long outcomes of deliveries are kept.
pub const OUTCOMES_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A frame of a slot's journal.
pub const JOURNAL_FRAME_BYTES: usize = 512 * 1024;
/// Frames of a slot's owner that are not yet known accepted.
pub const JOURNAL_FRAMES_IN_FLIGHT: usize = 64;
/// Commits that wait for a frame.
pub const JOURNAL_QUEUE_COMMITS: usize = 4_096;
/// Command ids that a slot remembers at least, beside all younger than [`JOURNAL_COMMAND_AGE`].
pub const JOURNAL_COMMANDS: usize = 100_000;
/// How long a slot remembers a command id at least.
pub const JOURNAL_COMMAND_AGE: Duration = Duration::from_secs(2 * 60);
/// Bytes behind its snapshot at which a slot's journal begins a new generation.
pub const JOURNAL_ROLL_BYTES: u64 = 16 * 1024 * 1024;
/// A segment file of the embedded log.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Records that wait for the embedded log's writer.
pub const APPEND_QUEUE_RECORDS: usize = 16_384;
/// The bytes of those records.
pub const APPEND_QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// What shutdown waits for deliveries and requests in flight.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
/// A resource file.
pub const RESOURCE_FILE_BYTES: usize = 1024 * 1024;
