//! The limits of the product, in one table with their units. Here, because every other crate may import this one.
//!
//! These are the defaults that product documentation names; a `Gateway` resource may change those of the listeners.

use std::fmt;
use std::time::Duration;

/// An event, attributes and payload together; small enough that every broker carries it.
pub const EVENT_BYTES: usize = 900 * 1024;
/// The names and values of an event's attributes.
pub const EVENT_ATTRIBUTES_BYTES: usize = 16 * 1024;
/// Attributes of an event, the required ones among them.
pub const EVENT_ATTRIBUTES: usize = 64;
/// Levels of nesting in a JSON payload that is read, `[]` being one; the same in every mode, so the event around it does
/// not count.
pub const JSON_DEPTH: usize = 64;
/// The body of a request.
pub const REQUEST_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Events in one batch.
pub const BATCH_EVENTS: usize = 1_000;
/// Faults that the answer to one batch names; more are only counted.
pub const BATCH_FAULTS: usize = 256;
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
/// A body that is refused unread, and that its client says is no longer than this, does not end its connection where it
/// has come along with the header.
pub const BODY_ALONG_BYTES: usize = 4 * 1024;
/// How long the rest of a request is read and thrown away after an answer that ends the connection, so that its sender
/// hears the answer.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of it.
pub const LINGER_BYTES: usize = 2 * REQUEST_BODY_BYTES;
/// A connection without a request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Events on their way to the log; beyond it a publish is refused before its body is read.
pub const PUBLISHES_IN_FLIGHT: usize = 8_192;
/// What a publisher waits that was refused because too many events were on their way.
pub const PUBLISHES_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Requests of one client address that wait for their answer.
pub const REQUESTS_IN_FLIGHT_PER_CLIENT: usize = 4_096;
/// Client addresses whose requests are counted one by one.
pub const CLIENTS: usize = 10_000;
/// From a publish to its receipt; beyond it the outcome is unknown.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// The name under which everything lies on a broker that is ours.
pub const NAMESPACE_BYTES: usize = 32;
/// What stands before the names of users' topics on a broker.
pub const TOPIC_PREFIX_BYTES: usize = 60;
/// What the start of a gateway waits for a broker that cannot be reached.
pub const BACKBONE_START_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is tried again.
pub const BACKBONE_START_INTERVAL: Duration = Duration::from_secs(3);
/// How often a further broker that cannot be reached is tried again, and what could not be attached there.
pub const BRIDGE_INTERVAL: Duration = Duration::from_secs(3);
/// What attaching a topic of a further broker may take, and before it the first opening of that broker.
pub const BRIDGE_ATTACH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a further broker that did not answer is asked nothing more on anybody's behalf: longer than it is between two attempts
/// that are made anyway.
pub const BRIDGE_SILENCE: Duration = Duration::from_secs(12);
/// What following the catalogue waits for topics of further brokers, all together; those that come later are attached all the same.
pub const BRIDGE_FOLLOW_TIMEOUT: Duration = Duration::from_millis(250);
/// Events of one partition that a migration carries over at once.
pub const MIGRATION_BATCH_EVENTS: usize = 1_000;
/// The bytes of those events.
pub const MIGRATION_BATCH_BYTES: usize = 1024 * 1024;
/// Partitions that a migration copies at the same time.
pub const MIGRATION_PARTITIONS: usize = 8;
/// Appends that wait while a backbone is moved; beyond it they are refused.
pub const MIGRATION_HELD_EVENTS: usize = 65_536;
/// What gateways may take to hold their work when a backbone is moved, before it is tried again later.
pub const MIGRATION_HOLD_TIMEOUT: Duration = Duration::from_secs(15);
/// What a gateway waits then for deliveries that are out; what is out longer is delivered again from the new backbone.
pub const MIGRATION_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after a move that did not come off the next is tried, and after an error of a broker the next copy.
pub const MIGRATION_RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// The longest such pause; each is twice the one before.
pub const MIGRATION_RETRY_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Places of a partition that are kept to find positions of one backbone on the other.
pub const MIGRATION_SAMPLES: usize = 64;
/// Further brokers that files may declare.
pub const BROKERS: usize = 32;
/// Bindings to queues of brokers that files may declare.
pub const BINDINGS: usize = 256;
/// The name of a queue or an exchange on a broker, and a routing key.
pub const QUEUE_NAME_BYTES: usize = 255;
/// Routing keys by which one binding is bound to an exchange.
pub const BINDING_KEYS: usize = 64;
/// Messages that a broker gives a binding before they are acknowledged, where nothing is said.
pub const BINDING_PREFETCH: u16 = 100;
/// The most of them that may be asked for.
pub const BINDING_PREFETCH_MAX: u16 = 2_000;
/// How often a binding tries again to read a queue that cannot be read.
pub const BINDING_INTERVAL: Duration = Duration::from_secs(2);
/// The first wait before a message of a binding is published again that the log did not take, doubled each time.
pub const BINDING_RETRY_INITIAL: Duration = Duration::from_millis(50);
/// The longest such wait.
pub const BINDING_RETRY_MAX: Duration = Duration::from_secs(2);
/// What messages of a binding may take that are on their way to the log when it is to end.
pub const BINDING_DRAIN_TIMEOUT: Duration = Duration::from_millis(600);
/// What another gateway is given to say how it is doing.
pub const CLUSTER_ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// The name of a topic of somebody else's, as the broker has it.
pub const ATTACHED_NAME_BYTES: usize = 255;
/// Slots of a cluster.
pub const SLOTS_MAX: u32 = 256;
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
/// The shortest secret that signs deliveries.
pub const WEBHOOK_SECRET_BYTES_MIN: usize = 24;
/// The longest secret that signs deliveries.
pub const WEBHOOK_SECRET_BYTES_MAX: usize = 64;
/// Keys that one subscription signs with at once.
pub const WEBHOOK_KEYS: usize = 4;
/// How far the clocks of a signer and its verifier may be apart, the time on the way counted.
pub const WEBHOOK_TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// Headers that a subscription may add to its requests.
pub const SINK_HEADERS: usize = 32;
/// The bytes of those headers, names and values.
pub const SINK_HEADERS_BYTES: usize = 8 * 1024;
/// A file of certificates that a subscription trusts.
pub const SINK_CA_BYTES: usize = 1024 * 1024;
/// How long a sink's consent to receive events is good before it is asked again.
pub const HANDSHAKE_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The most requests per minute that a subscription may ask leave for.
pub const HANDSHAKE_RATE_MAX: u32 = 1_000_000;
/// How long a sink may answer with nothing but refusals (401, 403, 404 and their like) before its subscription pauses.
pub const SINK_REFUSAL_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How soon a sink is tried after it could not be reached, or failed whatever it was sent; doubled each time.
pub const SINK_PROBE_INITIAL: Duration = Duration::from_secs(1);
/// How rarely such a sink is tried.
pub const SINK_PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Failures in a row, of any kind that another try may mend, after which a sink is only probed.
pub const BREAKER_FAILURES: u32 = 10;
/// Different keys that must be among those failures.
pub const BREAKER_KEYS: usize = 5;
/// Retries for each hundred first attempts to a sink; more of them wait.
pub const RETRY_BUDGET_SHARE: u64 = 20;
/// Retries a second to a sink beside those.
pub const RETRY_BUDGET_PER_SECOND: u64 = 10;
/// How long retries that were not made may be made up for.
pub const RETRY_BUDGET_WINDOW: Duration = Duration::from_secs(10);
/// How far ahead an event may be published that is to be delivered later.
pub const DELAY_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a request waits that comes while the gateway starts; beyond it, it is told to come again.
pub const STARTUP_REQUEST_WAIT: Duration = Duration::from_secs(1);
/// How long a broker may take to delete the logs of a topic.
pub const TOPIC_DELETE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after that a topic of the same name can be created although nobody said that they are gone.
pub const TOPIC_DELETE_GRACE: Duration = Duration::from_secs(5);
/// Requests on topics that wait for a reply at once.
pub const REPLY_WAITERS: usize = 10_000;
/// The longest that one of them may wait.
pub const REPLY_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// How long another gateway may take to note that a reply is wanted of it, or to take one that it waits for.
pub const REPLY_PASS_TIMEOUT: Duration = Duration::from_millis(500);
/// How often it is looked, while a reply is waited for, whether another gateway delivers its request by now.
pub const REPLY_OWNER_INTERVAL: Duration = Duration::from_millis(250);
/// Paused keys of a subscription that one answer names; the others are only counted.
pub const PAUSED_KEYS_SHOWN: usize = 100;
/// Deliveries of one subscription that are out at once.
pub const DELIVERIES_IN_FLIGHT: u32 = 32;
/// The highest number of deliveries in flight that a subscription may ask for.
pub const DELIVERIES_IN_FLIGHT_MAX: u32 = 1_024;
/// The longest time for one attempt that a subscription may ask for.
pub const DELIVERY_TIMEOUT_MAX: Duration = Duration::from_secs(10 * 60);
/// Events of one subscription that wait in memory for a free place.
pub const DELIVERY_QUEUE_EVENTS: usize = 1_024;
/// The bytes of those events.
pub const DELIVERY_QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Events of keys that wait for a retry, of one subscription and topic partition, that were read again into memory.
pub const RETRY_QUEUE_EVENTS: usize = 1_024;
/// The bytes of those events.
pub const RETRY_QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// How long keys are gathered that are due, so that one read of their partition serves many, where others are in memory.
pub const RETRY_LOAD_INTERVAL: Duration = Duration::from_millis(50);
/// Keys of one subscription and topic partition that wait for a retry; beyond it the subscription reads no further.
pub const PARKED_KEYS: usize = 10_000;
/// Dead letters of one subscription that are being redriven; what is beyond it is taken up by the next request.
pub const REDRIVE_LETTERS: usize = 10_000;
/// Dead letters that one request may edit.
pub const REDRIVE_EDITS: usize = 100;
/// Attempts of a delivery before it is dead-lettered.
pub const RETRY_ATTEMPTS: u32 = 20;
/// Age of the first attempt at which a delivery is dead-lettered.
pub const RETRY_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The first delay between attempts, before jitter.
pub const RETRY_INITIAL: Duration = Duration::from_secs(1);
/// The longest delay between attempts, before jitter.
pub const RETRY_MAX: Duration = Duration::from_secs(60 * 60);
/// The longest delay that a sink's `Retry-After` is honoured for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// The most attempts that a retry policy may ask for.
pub const RETRY_ATTEMPTS_MAX: u32 = 1_000;
/// The greatest age that a retry policy may ask for.
pub const RETRY_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Topics that an event may pass through by way of `topic://` sinks before it is dead-lettered with the cause `loop`.
pub const HOPS: u32 = 16;
/// Levels of `all`, `any` and `not` in one filter.
pub const FILTER_DEPTH: usize = 16;
/// Expressions in the filters of one subscription, each attribute pair counted.
pub const FILTER_EXPRESSIONS: usize = 256;
/// Predicates that the explanation names why an event does not match; more are only counted.
pub const EXPLANATION_PREDICATES: usize = 32;
/// A predicate, or a value of the event, in such an explanation; longer ones are cut.
pub const EXPLANATION_TEXT_BYTES: usize = 512;
/// The text of one CESQL expression.
pub const CESQL_BYTES: usize = 16 * 1024;
/// Levels of nesting in a CESQL expression, parentheses counted.
pub const CESQL_DEPTH: usize = 64;
/// Operators, values and functions in one CESQL expression.
pub const CESQL_NODES: usize = 4_096;
/// A text that a function of a CESQL expression makes; beyond it the function fails.
pub const CESQL_TEXT_BYTES: usize = 256 * 1024;
/// The text of one CEL expression.
pub const CEL_BYTES: usize = 4 * 1024;
/// Levels of nesting in a CEL expression; each operator of a chain is one.
pub const CEL_DEPTH: usize = 32;
/// Operators, values and functions in one CEL expression, those that its macros stand for counted.
pub const CEL_NODES: usize = 1_024;
/// Macros of a CEL expression that run over lists, each within the one before.
pub const CEL_COMPREHENSIONS: usize = 2;
/// Steps of one evaluation of a CEL expression: an element, or 64 bytes of text, that an operation visits or copies.
pub const CEL_STEPS: u64 = 1_000_000;
/// A compiled pattern of a CEL expression.
pub const CEL_PATTERN_BYTES: usize = 256 * 1024;
/// Appended how long before an event of the same source and id makes it a duplicate.
pub const DEDUPE_WINDOW: Duration = Duration::from_secs(2 * 60);
/// The longest such window that a topic may ask for.
pub const DEDUPE_WINDOW_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Events that a duplicate is looked for among, whatever their age.
pub const DEDUPE_EVENTS: usize = 100_000;
/// How long a topic keeps its events where nothing is said.
pub const RETENTION_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long dead letters are kept where nothing is said.
pub const RETENTION_DEAD_LETTERS_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often topics are looked at for events that are to go.
pub const RETENTION_INTERVAL: Duration = Duration::from_secs(60);
/// Partitions that the broker is asked about at once, where subscriptions begin or slots come.
pub const BROKER_QUESTIONS: usize = 64;
/// Topics that the broker is asked to create at once: one that makes them one after the other must come to the last in time.
pub const TOPIC_CREATIONS: usize = 32;
/// How often delivery progress is journalled at most.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(250);
/// How long outcomes of deliveries are kept.
pub const OUTCOMES_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Entries of the index of passports, 16 bytes each, that are held in memory before they are written as a run; twice as
/// many where they cannot be written.
pub const PASSPORT_RUN_ENTRIES: usize = 262_144;
/// Bytes of events and outcomes that a run stands for at most, give or take one read: a start reads again what no run holds.
pub const PASSPORT_RUN_BYTES: u64 = 256 * 1024 * 1024;
/// Partitions that one run of the index of passports names.
pub const PASSPORT_RUN_LOGS: usize = 2_048;
/// Runs of the index of passports that are searched; the oldest are left out beyond it.
pub const PASSPORT_RUNS: usize = 16_384;
/// Places of one event id that a passport tells of, the newest.
pub const PASSPORT_PLACES: usize = 100;
/// Frames of outcomes that are read for one passport, the newest.
pub const PASSPORT_FRAMES: usize = 4_096;
/// Recorded events of each topic that a plan looks at, where nothing is said.
pub const PLAN_EVENTS: usize = 1_000;
/// The most that may be asked for.
pub const PLAN_EVENTS_MAX: usize = 100_000;
/// Events that a plan may be asked to name of each kind of change.
pub const PLAN_EXAMPLES_MAX: usize = 1_000;
/// Bytes of recorded events that one plan looks at, all topics together.
pub const PLAN_SCAN_BYTES: u64 = 256 * 1024 * 1024;
/// How long the owners of other slots may take to tell how subscriptions stand; those that take longer are told as missing.
pub const DELIVERY_ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for what they have to read topics for: dead letters and passports.
pub const DELIVERY_SEARCH_TIMEOUT: Duration = Duration::from_secs(15);
/// What a question for a passport waits for the index to be filled.
pub const PASSPORT_FILL_TIMEOUT: Duration = Duration::from_secs(10);
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
/// Changes that wait for one watch of a journal; beyond it the watcher is told to read all again.
pub const JOURNAL_WATCH_CHANGES: usize = 4_096;
/// What a caller waits whose command found the queue of a journal full.
pub const JOURNAL_RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often a frame whose fate is not known is read back and sent again before the owner gives its epoch up.
pub const JOURNAL_RESENDS: u32 = 8;
/// The first wait between those, doubled each time.
pub const JOURNAL_RESEND_DELAY: Duration = Duration::from_millis(20);
/// The longest wait between those: an owner is back well before others take its silence for its end.
pub const JOURNAL_RESEND_DELAY_MAX: Duration = Duration::from_millis(500);
/// What a commit in a slot that several processes share waits until its outcome is unknown.
pub const JOURNAL_COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// What one call of a journal to a log that several processes share may take until its outcome is unknown.
pub const JOURNAL_SHARED_CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// What an owner that is told to close waits for a broker that is away.
pub const JOURNAL_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What one append, read or other call of a journal to its log may take until its outcome is unknown.
pub const JOURNAL_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Snapshot frames of a roll that are not yet known accepted.
pub const JOURNAL_ROLL_FRAMES_IN_FLIGHT: usize = 4;
/// Rounds in which a roll writes what has changed since the last round before it makes commits wait.
pub const JOURNAL_ROLL_ROUNDS: u32 = 4;
/// How often opening a slot looks again because another owner was at work on it.
pub const JOURNAL_OPEN_ATTEMPTS: u32 = 8;
/// How long an owner may act from when it sent the newest frame that it knows accepted.
pub const CLAIM_LEASE: Duration = Duration::from_millis(1_500);
/// An owner that has written nothing for so long writes a heartbeat.
pub const CLAIM_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// How long an owner must be silent, as seen by a process that reads the log to its end, before it is replaced.
pub const CLAIM_SILENCE: Duration = Duration::from_secs(2);
/// The same where the broker was away in between: an owner is given that long to be heard again.
pub const CLAIM_RETURN_SILENCE: Duration = Duration::from_secs(4);
/// How much later each candidate for a slot announces itself than the one before it.
pub const CLAIM_RANK_DELAY: Duration = Duration::from_millis(300);
/// A process that has read nothing of a slot for so long asks for the end of its log.
pub const CLAIM_PROBE_INTERVAL: Duration = Duration::from_millis(550);
/// What the answer to that takes where the broker is well; beyond it the broker is slow, and so are the signs of life of owners.
pub const CLAIM_PROBE_PROMPT: Duration = Duration::from_millis(400);
/// What the answer to that may take.
pub const CLAIM_PROBE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Without reading, or an answer that was read up to, for so long a process cannot tell a silent owner from a broker that is
/// away, and begins to count anew.
pub const CLAIM_SIGN_TIMEOUT: Duration = Duration::from_millis(1_000);
/// A process that was given no answer for so long asks for the end of a slot's log, though it reads what comes by itself.
pub const CLAIM_ASK_INTERVAL: Duration = Duration::from_secs(2);
/// How long a broker may answer nothing that a gateway asks or writes, before the gateway is not ready.
pub const CLAIM_ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a slot may be without a sign of life that the broker accepted, before the gateways that follow it are not ready:
/// longer than a broker takes to elect a new leader for its log.
pub const CLAIM_PULSE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a slot must belong elsewhere before its owner gives it up.
pub const CLAIM_SETTLE_TIME: Duration = Duration::from_secs(2);
/// How often a process looks at what has changed around a slot.
pub const CLAIM_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How soon a slot that cannot be read is looked for again, doubled each time.
pub const CLAIM_FIND_DELAY: Duration = Duration::from_millis(100);
/// The longest wait before that.
pub const CLAIM_FIND_DELAY_MAX: Duration = Duration::from_millis(500);
/// When a slot whose records are missing or damaged is looked at again.
pub const CLAIM_DATA_LOSS_DELAY: Duration = Duration::from_secs(10);
/// How soon a command is offered again to a slot's owner that was not known or did not own it.
pub const CLAIM_RETRY_DELAY: Duration = Duration::from_millis(50);
/// What a slot's owner may take to answer a command before it is offered again.
pub const CLAIM_CALL_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How often a command follows another process's word for who owns a slot.
pub const CLAIM_HINTS: u32 = 8;
/// What leaving waits in all until every slot is given up.
pub const CLAIM_LEAVE_TIMEOUT: Duration = Duration::from_secs(4);
/// What work in a slot may take to end before the slot is given up.
pub const CLAIM_DRAIN_TIMEOUT: Duration = Duration::from_millis(800);
/// How long a generation that is done with stays for those who follow a slot that several processes share.
pub const JOURNAL_SEALED_AGE: Duration = Duration::from_secs(10);
/// Bytes that one read of a slot's log takes.
pub const JOURNAL_READ_BYTES: usize = 1024 * 1024;
/// Bytes of a body in one message between gateways; a larger body follows in chunks of that size.
pub const LANE_CHUNK_BYTES: usize = 64 * 1024;
/// What a message between gateways has around its part of a body at most.
pub const LANE_HEADER_BYTES: usize = 512;
/// Bytes of a body that are sent to another gateway before it lets go on.
pub const LANE_WINDOW_BYTES: usize = 4 * LANE_CHUNK_BYTES;
/// The body of a request to another gateway, or of its reply.
pub const LANE_BODY_BYTES: usize = 8 * 1024 * 1024;
/// Requests of a gateway to others that wait for their reply.
pub const LANE_CALLS: usize = 16_384;
/// Requests of other gateways that are carried out, or whose body is under way, at once.
pub const LANE_REQUESTS: usize = 16_384;
/// Newest requests of each gateway that its peers remember, so that none is carried out twice.
pub const LANE_SEEN_REQUESTS: usize = 65_536;
/// Gateways of one cluster that each of them knows, and whose requests it takes.
pub const LANE_MEMBERS: usize = 1_024;
/// The longest that a request to another gateway may take.
pub const LANE_TIMEOUT_MAX: Duration = Duration::from_secs(10 * 60);
/// How long a gateway that sends no requests is remembered by those that it sent some to.
pub const LANE_CALLER_AGE: Duration = Duration::from_secs(20 * 60);
/// A body under way between gateways of which nothing comes.
pub const LANE_TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a gateway tells that it is there.
pub const LANE_BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which a gateway is taken for gone.
pub const LANE_GONE_AFTER: Duration = Duration::from_secs(3);
/// How often silence and bodies under way are looked at.
pub const LANE_TICK: Duration = Duration::from_millis(250);
/// What a gateway waits at its start until it hears itself on the broker.
pub const LANE_ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it asks meanwhile.
pub const LANE_ASK_INTERVAL: Duration = Duration::from_millis(500);
/// What it then waits for answers of others, from the last new one on.
pub const LANE_ASK_QUIET: Duration = Duration::from_millis(300);
/// What a gateway that leaves waits for requests that it carries out.
pub const LANE_LEAVE_GRACE: Duration = Duration::from_secs(2);
/// How often a request may be passed on from gateway to gateway.
pub const LANE_HOPS: u8 = 4;
/// Gateways that a request to any of them is tried at.
pub const LANE_ATTEMPTS: usize = 3;
/// When to try again after a bound of requests between gateways was reached.
pub const LANE_RETRY_AFTER: Duration = Duration::from_millis(50);
/// The name of a service between gateways.
pub const LANE_SERVICE_BYTES: usize = 64;
/// The code, or the message, of a refusal between gateways; longer ones are cut.
pub const LANE_REFUSAL_BYTES: usize = 4 * 1024;
/// Messages that wait for a reader of the lane within a process.
pub const LANE_QUEUE_MESSAGES: usize = 16_384;
/// A segment file of the embedded log.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Records that wait for the embedded log's writer.
pub const APPEND_QUEUE_RECORDS: usize = 16_384;
/// The bytes of those records.
pub const APPEND_QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// A record of the embedded log as it is stored: an event and what its encoding adds, or a frame of a slot.
pub const EMBEDDED_RECORD_BYTES: usize = 1024 * 1024;
/// What one commit of the embedded log writes; the rest of the queue waits for the next.
pub const COMMIT_BYTES: usize = 4 * 1024 * 1024;
/// Commits of the embedded log whose outcomes a task has yet to tell; beyond it the writer tells them itself.
pub const COMMITS_UNANSWERED: usize = 16;
/// What is allocated ahead in a segment of the embedded log.
pub const SEGMENT_ALLOCATION_BYTES: u64 = 8 * 1024 * 1024;
/// What of that is kept free for trims and deletions when the disk is full.
pub const SEGMENT_RESERVE_BYTES: u64 = 64 * 1024;
/// Records of the embedded log that are kept in memory for readers at the end, all logs together.
pub const RECENT_BYTES: usize = 4 * 1024 * 1024;
/// Indexes of sealed segments that are kept in memory.
pub const SEGMENT_INDEX_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Files of sealed segments that are kept open.
pub const SEGMENT_FILES_OPEN: usize = 64;
/// Reads of the embedded log that wait for a thread; beyond it a reader waits its turn.
pub const READ_QUEUE_JOBS: usize = 256;
/// What a reader of the embedded log reads at once, at first.
pub const READ_BYTES: usize = 64 * 1024;
/// What a reader that goes on reads at once.
pub const READ_BYTES_MAX: usize = 256 * 1024;
/// What is copied forward at once out of a segment that is emptied.
pub const COPY_BYTES: usize = 1024 * 1024;
/// Opening a connection to a NATS server, its greeting and the credentials among it.
pub const NATS_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One question to a NATS server beside appends.
pub const NATS_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// From an append to its acknowledgement by a NATS server; beyond it the outcome is unknown.
pub const NATS_ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long acknowledgements are waited for that a lost connection has most likely taken along.
pub const NATS_ACK_GRACE: Duration = Duration::from_millis(500);
/// Silence after which a NATS server is asked for a sign of life; after the third time the connection is opened anew.
pub const NATS_PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long a NATS server may leave such a question unanswered, whatever else comes from it, before the connection is opened anew.
pub const NATS_ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest wait before a NATS server is tried again.
pub const NATS_RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);
/// Messages that wait to be written to a NATS server's connection, all logs and lanes together.
pub const NATS_COMMANDS: usize = 2_048;
/// The headers of one record on NATS.
pub const NATS_HEADERS_BYTES: usize = 64 * 1024;
/// Logs whose names on a NATS server are remembered; beyond that they are put together anew.
pub const NATS_TARGETS_KEPT: usize = 65_536;
/// Records that a reader of NATS asks for at once.
pub const NATS_PULL_RECORDS: usize = 512;
/// The bytes of those, where no single record is larger.
pub const NATS_PULL_BYTES: usize = 1024 * 1024;
/// How long a reader of NATS waits before it asks again.
pub const NATS_PULL_EXPIRES: Duration = Duration::from_secs(30);
/// How often a NATS server tells a waiting reader of a topic that it is still there; after the second that is missing the
/// reader begins anew.
pub const NATS_HEARTBEAT: Duration = Duration::from_secs(5);
/// The same for a reader of a slot.
pub const NATS_HEARTBEAT_SLOT: Duration = Duration::from_millis(500);
/// How long a NATS server keeps what belongs to a reader that has gone.
pub const NATS_CONSUMER_IDLE: Duration = Duration::from_secs(60);
/// The longest wait of a reader of NATS before it begins anew once more.
pub const NATS_READ_RETRY_DELAY: Duration = Duration::from_millis(500);
/// Messages of a lane that wait for the connection to NATS.
pub const NATS_LANE_QUEUE: usize = 4_096;
/// The bytes of those messages.
pub const NATS_LANE_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// The least budget of memory that can be configured.
pub const MEMORY_BYTES_MIN: usize = 16 * 1024 * 1024;
/// When to try again after there was no memory left.
pub const MEMORY_RETRY_AFTER: Duration = Duration::from_secs(1);
/// When to try again after the queue of appends was full.
pub const APPEND_RETRY_AFTER: Duration = Duration::from_millis(50);
/// Appends to Kafka that wait for their acknowledgement, in each of two groups: topics, and slots.
pub const KAFKA_QUEUE_RECORDS: usize = 65_536;
/// The bytes of those appends.
pub const KAFKA_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// A batch of records as topics on Kafka are created to take it, where the broker does not allow less.
pub const KAFKA_BATCH_BYTES: usize = 1_048_588;
/// The least that a Kafka broker must allow for a batch.
pub const KAFKA_BATCH_BYTES_MIN: usize = 256 * 1024;
/// What of a batch is left for what Kafka's format puts around a record.
pub const KAFKA_BATCH_HEADROOM_BYTES: usize = 4 * 1024;
/// What is fetched ahead for one reader of a log on Kafka; one larger record is fetched alone.
pub const KAFKA_READ_QUEUE_BYTES: usize = 256 * 1024;
/// One fetch of many logs.
pub const KAFKA_FETCH_BYTES: usize = 8 * 1024 * 1024;
/// Records that a reader is given at once.
pub const KAFKA_BATCH_RECORDS: usize = 1_024;
/// Logs on Kafka that one client reads.
pub const KAFKA_READERS_PER_CLIENT: usize = 256;
/// Clients that read from Kafka, in each of two groups; as many can read one log at once.
pub const KAFKA_READ_CLIENTS: usize = 64;
/// Calls, questions or readers that wait for the Kafka client.
pub const KAFKA_CALLS: usize = 4_096;
/// Topics that one request asks Kafka to create.
pub const KAFKA_CREATIONS: usize = 64;
/// How long Kafka may take to answer a question.
pub const KAFKA_ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a partition of Kafka may have no leader that is ready, before a question about it fails.
pub const KAFKA_LEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a Kafka broker may take to answer at all, when it is opened.
pub const KAFKA_OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long appends may take that are under way when Kafka is closed.
pub const KAFKA_CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// A message between nodes on a lane of Kafka.
pub const KAFKA_LANE_MESSAGE_BYTES: usize = 512 * 1024;
/// Messages between gateways that wait for the broker to take them.
pub const KAFKA_LANE_QUEUE: usize = 4_096;
/// Their bytes.
pub const KAFKA_LANE_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Partitions of the topic of the lanes on Kafka: one for what is broadcast, the others for nodes.
pub const KAFKA_LANES: i32 = 17;
/// One record on RabbitMQ, with its properties.
pub const RABBITMQ_RECORD_BYTES: usize = 1024 * 1024;
/// Appends to RabbitMQ that wait for their confirmation, in each of two groups: topics and slots.
pub const RABBITMQ_QUEUE_RECORDS: usize = 16_384;
/// The bytes of those appends.
pub const RABBITMQ_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// From an append to its confirmation by RabbitMQ; beyond it the outcome is unknown.
pub const RABBITMQ_CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// Opening a connection to a node of RabbitMQ, TLS and the credentials among it.
pub const RABBITMQ_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One question to RabbitMQ beside appends.
pub const RABBITMQ_CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Open channels of messages to streams on RabbitMQ, one for each stream that is written to: of topics, and as many of slots.
pub const RABBITMQ_PUBLISH_CHANNELS: usize = 768;
/// Questions to RabbitMQ at once; more wait.
pub const RABBITMQ_QUESTIONS: usize = 64;
/// Channels to RabbitMQ that stay open for the next questions.
pub const RABBITMQ_QUESTION_CHANNELS: usize = 8;
/// How long a frame of a journal that RabbitMQ has confirmed may take until it is read along; beyond it the journal is read back.
pub const RABBITMQ_POSITION_TIMEOUT: Duration = Duration::from_millis(400);
/// Journals on RabbitMQ in which this gateway reads along where its frames stand; in more than those it reads back.
pub const RABBITMQ_WATCHES: usize = 512;
/// How long a journal is read along to which nothing is written: longer than its owner is without a sign of life.
pub const RABBITMQ_WATCH_IDLE: Duration = Duration::from_secs(5);
/// How long a record that one node of RabbitMQ has told before is looked for again, before it is believed that it was lost.
pub const RABBITMQ_NODE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a node of a RabbitMQ cluster may lack what was read before from another one, until it counts as lost.
pub const RABBITMQ_REPLICA_PATIENCE: Duration = Duration::from_secs(15);
/// How long after a connection was made RabbitMQ may not know of a stream that is written down as there: it has just started.
pub const RABBITMQ_START_PATIENCE: Duration = Duration::from_secs(15);
/// How often RabbitMQ and the gateway give each other a sign of life; after the second that is missing the
/// connection is opened anew.
pub const RABBITMQ_HEARTBEAT: Duration = Duration::from_secs(3);
/// The longest wait before a node of RabbitMQ is tried again.
pub const RABBITMQ_RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);
/// What a reader of RabbitMQ is given before its caller has taken it, by the size of the records that were seen until then.
pub const RABBITMQ_READ_BYTES: u64 = 4 * 1024 * 1024;
/// The most records of it.
pub const RABBITMQ_PREFETCH: u16 = 1_024;
/// The least, whatever their size.
pub const RABBITMQ_PREFETCH_MIN: u16 = 16;
/// Silence after which a reader of RabbitMQ asks whether there is more than it was given.
pub const RABBITMQ_QUIET: Duration = Duration::from_secs(5);
/// Readers of RabbitMQ that each ask after that silence; where there are more, they ask more seldom in proportion.
pub const RABBITMQ_QUIET_READERS: usize = 64;
/// How long a log on RabbitMQ is taken for one that was never trimmed, before it is looked again.
pub const RABBITMQ_MARK_AGE: Duration = Duration::from_secs(2);
/// How long the first gateway of a namespace rests after it has created the list of logs: RabbitMQ writes down half a second
/// after its first stream that it has any.
pub const RABBITMQ_FIRST_STREAM_REST: Duration = Duration::from_secs(1);
/// Streams on RabbitMQ of which it is remembered where they ended.
pub const RABBITMQ_HINTS_KEPT: usize = 65_536;
/// How long it is taken for known where a journal on RabbitMQ begins.
pub const RABBITMQ_BEGIN_AGE: Duration = Duration::from_secs(10);
/// What is kept for a moment of the records that were read to tell where a journal on RabbitMQ ends, for each.
pub const RABBITMQ_RECENT_BYTES: usize = 256 * 1024;
/// A segment of a new stream on RabbitMQ, which lets go of whole segments.
pub const RABBITMQ_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// One message of a lane on RabbitMQ.
pub const RABBITMQ_LANE_MESSAGE_BYTES: usize = 512 * 1024;
/// Messages of a lane that wait on the way to RabbitMQ.
pub const RABBITMQ_LANE_QUEUE: usize = 4_096;
/// The bytes of those messages.
pub const RABBITMQ_LANE_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Messages in the queue of a node on RabbitMQ; beyond it the oldest are lost.
pub const RABBITMQ_LANE_INBOX: usize = 65_536;
/// The bytes of those messages.
pub const RABBITMQ_LANE_INBOX_BYTES: usize = 64 * 1024 * 1024;
/// Messages of a lane that a node is given before it has taken them.
pub const RABBITMQ_LANE_PREFETCH: u16 = 256;
/// What one page that is read back looks at in each partition; a filter that lets little pass ends it there.
pub const PAGE_SCAN_BYTES: usize = 64 * 1024 * 1024;
/// What shutdown waits for deliveries and requests in flight.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
/// How often the folder of resources is looked at for changes.
pub const RESOURCES_INTERVAL: Duration = Duration::from_millis(250);
/// A resource file.
pub const RESOURCE_FILE_BYTES: usize = 1024 * 1024;
/// Resource files that are read at once.
pub const RESOURCE_FILES: usize = 1_000;
/// Values in one resource file, every use of an alias counted as what it stands for.
pub const YAML_NODES: usize = 100_000;
/// Levels of nesting in a resource file.
pub const YAML_DEPTH: usize = 64;
/// Events of one batch that the command line sends.
pub const CLIENT_BATCH_EVENTS: usize = 500;
/// The bytes of such a batch; a longer event goes alone.
pub const CLIENT_BATCH_BYTES: usize = 1024 * 1024;
/// How long the command line waits for more lines before it sends those that it has.
pub const CLIENT_BATCH_LINGER: Duration = Duration::from_millis(50);
/// A line that the command line publishes.
pub const CLIENT_LINE_BYTES: usize = REQUEST_BODY_BYTES - 2;
/// A JSON file that the command line publishes; larger ones are published line by line.
pub const CLIENT_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Opening a connection to a gateway.
pub const CLIENT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request of the command line, from the connection to the last byte of the answer.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// An answer that the command line reads whole.
pub const CLIENT_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// One event of a stream that the command line follows; JSON may write a byte as six.
pub const CLIENT_STREAM_EVENT_BYTES: usize = 8 * 1024 * 1024;
/// A followed stream without even a keep-alive.
pub const CLIENT_STREAM_SILENCE: Duration = Duration::from_secs(75);
/// The first wait before a followed stream is asked for again, doubled each time.
pub const CLIENT_RECONNECT_INITIAL: Duration = Duration::from_millis(250);
/// The longest such wait.
pub const CLIENT_RECONNECT_MAX: Duration = Duration::from_secs(10);
/// How often the command line sends a batch of a file again that a busy gateway refused.
pub const CLIENT_RETRIES: u32 = 8;
/// The wait before that, where the gateway names none.
pub const CLIENT_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest wait before that, whatever the gateway names.
pub const CLIENT_RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Dead letters that the command line asks for at once.
pub const CLIENT_DEAD_LETTERS: usize = 100;
/// Dead letters that the command line names in one request.
pub const CLIENT_DEAD_LETTER_IDS: usize = 100;

/// The limits that reading an event keeps to; the constants of this table are their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`EVENT_BYTES`].
    pub event_bytes: usize,
    /// See [`EVENT_ATTRIBUTES_BYTES`].
    pub event_attributes_bytes: usize,
    /// See [`EVENT_ATTRIBUTES`].
    pub event_attributes: usize,
    /// See [`JSON_DEPTH`].
    pub json_depth: usize,
    /// See [`BATCH_EVENTS`].
    pub batch_events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: EVENT_BYTES,
            event_attributes_bytes: EVENT_ATTRIBUTES_BYTES,
            event_attributes: EVENT_ATTRIBUTES,
            json_depth: JSON_DEPTH,
            batch_events: BATCH_EVENTS,
        }
    }
}

/// A limit that an event or a batch can exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Attributes and payload together, see [`EVENT_BYTES`].
    EventBytes,
    /// Names and values of the attributes, see [`EVENT_ATTRIBUTES_BYTES`].
    EventAttributesBytes,
    /// The number of attributes, see [`EVENT_ATTRIBUTES`].
    EventAttributes,
    /// The number of events of a batch, see [`BATCH_EVENTS`].
    BatchEvents,
}

/// An event or a batch exceeds a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Which limit.
    pub limit: Limit,
    /// The most that is allowed, in the unit of the limit.
    pub allowed: usize,
    /// What was found; reading stops at a limit, so there may have been more.
    pub found: usize,
    /// The index of the event within its batch, where it came in one.
    pub index: Option<usize>,
}

impl TooLarge {
    /// Fails where more was found than is allowed.
    pub(crate) fn check(limit: Limit, found: usize, allowed: usize) -> Result<(), Self> {
        if found > allowed { Err(Self { limit, allowed, found, index: None }) } else { Ok(()) }
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(formatter, "event {index} of the batch: ")?;
        }
        let Self { allowed, found, .. } = self;
        match self.limit {
            Limit::EventBytes => write!(
                formatter,
                "attributes and data take {found} bytes, more than the {allowed} allowed; keep large content elsewhere and \
                 send a reference to it"
            ),
            Limit::EventAttributesBytes => write!(
                formatter,
                "the attributes take {found} bytes, more than the {allowed} allowed; move content into the data"
            ),
            Limit::EventAttributes => write!(
                formatter,
                "there are {found} attributes or more, and {allowed} are allowed; move some into the data"
            ),
            Limit::BatchEvents => {
                write!(formatter, "there are more than the {allowed} events allowed in a batch; send several batches")
            }
        }
    }
}

impl std::error::Error for TooLarge {}
/// How long a client may leave the bytes unread that it was sent, before its pace is judged.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The same while memory is short.
pub const WRITE_TIMEOUT_SHORT: Duration = Duration::from_secs(5);
/// The pace at which a client must read after [`WRITE_TIMEOUT`].
pub const ANSWER_BYTES_PER_SECOND: u64 = 1024;
/// Answers from this size on are refused when there is no memory for them.
pub const ANSWER_REFUSABLE_BYTES: usize = 64 * 1024;
/// What an open connection counts for in the budget of memory.
pub const CONNECTION_BYTES: usize = 16 * 1024;
/// Refused connections that are told why at the same time; others are closed without a word.
pub const REFUSALS: usize = 64;
/// Streams that an HTTP/2 client may have open at once.
pub const HTTP2_STREAMS: u32 = 100;
/// Streams that an HTTP/2 client may have reset before the gateway looked at them; beyond it the connection ends.
pub const HTTP2_PENDING_RESETS: usize = 20;
/// Streams of one HTTP/2 connection that the gateway may have to reset for a fault of the client; beyond it the
/// connection ends.
pub const HTTP2_FAULTY_STREAMS: usize = 128;
/// A frame of an HTTP/2 client.
pub const HTTP2_FRAME_BYTES: u32 = 16 * 1024;
/// What an HTTP/2 client may send ahead on one stream.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// What an HTTP/2 client may send ahead on one connection.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What is buffered for one HTTP/2 stream that its client does not read.
pub const HTTP2_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Silence after which an HTTP/2 client is asked for a sign of life.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long that sign may take.
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A message of a WebSocket. As a request's body: the JSON format may write a byte of the payload as six.
pub const WEBSOCKET_MESSAGE_BYTES: usize = REQUEST_BODY_BYTES;
/// Events of one WebSocket that are being stored; beyond it no message is read.
pub const WEBSOCKET_PUBLISHES: usize = 64;
/// The bytes of those events.
pub const WEBSOCKET_PUBLISHES_BYTES: usize = 2 * 1024 * 1024;
/// Silence after which a WebSocket client is asked for a sign of life.
pub const WEBSOCKET_PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long that sign may take.
pub const WEBSOCKET_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a WebSocket client may leave a message unread.
pub const WEBSOCKET_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a WebSocket client may take to answer that its connection is closed.
pub const WEBSOCKET_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// What is buffered for reading from one WebSocket, at first.
pub const WEBSOCKET_READ_BUFFER_BYTES: usize = 4 * 1024;
/// Idle connections that are kept for one sink.
pub const SINK_IDLE_CONNECTIONS: usize = 32;
/// How long an idle connection to a sink is kept.
pub const SINK_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The header block of a sink's answer.
pub const SINK_RESPONSE_HEADERS_BYTES: usize = 32 * 1024;
/// A filter of log lines.
pub const LOG_FILTER_BYTES: usize = 4 * 1024;
/// Spans that wait for their export; beyond it they are dropped and counted.
pub const TRACES_QUEUE_SPANS: usize = 4_096;
/// Spans of one export.
pub const TRACES_BATCH_SPANS: usize = 512;
/// How long spans wait for others before they are exported.
pub const TRACES_BATCH_INTERVAL: Duration = Duration::from_secs(2);
/// One export of spans, every time that it is sent again counted.
pub const TRACES_EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The first wait before an export is sent again, doubled each time.
pub const TRACES_RETRY_DELAY: Duration = Duration::from_millis(500);
/// The longest such wait.
pub const TRACES_RETRY_DELAY_MAX: Duration = Duration::from_secs(4);
/// How often the failure of exports is told.
pub const TRACES_FAILURE_INTERVAL: Duration = Duration::from_secs(60);
/// What the end of the process waits for the last spans.
pub const TRACES_SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// Subscriptions that have figures of their own in the metrics.
pub const METRICS_SUBSCRIPTIONS: usize = 1_000;
