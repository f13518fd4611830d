use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Limits;
use super::framing::Framing;

/// What a connection is doing and since when, written by its transport and its requests, and read by its watch.
#[derive(Debug)]
pub(super) struct Pulse(Mutex<State>);

#[derive(Debug)]
struct State {
    protocol: Protocol,
    /// Requests whose answer has not ended.
    in_flight: usize,
    /// Since when no request is in flight.
    idle_since: Instant,
    /// When the first byte of the request came that is being read, where the connection is HTTP/1.
    header_since: Option<Instant>,
    /// The header block of that request.
    framing: Framing,
    /// Since when the client leaves bytes unread.
    blocked_since: Option<Instant>,
    /// How much of the time that it may do so was used up before, and not earned back by what it read.
    blocked_before: Duration,
    /// A handler's answer is due, whose head was not written yet.
    head_due: bool,
    /// The body of the last request was given up before its end, so its sender may still be sending.
    unread: bool,
    /// Handed over to another protocol, whose affair all this is from then on.
    upgraded: bool,
}

#[derive(Debug)]
enum Protocol {
    /// So many bytes of the HTTP/2 preface have come, and nothing else.
    Preface(usize),
    Http1,
    Http2,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Why the watch ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Header,
    Idle,
    Unread,
}

impl Verdict {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Idle => "idle",
            Self::Unread => "unread",
        }
    }
}

/// How the length of an HTTP/1 body was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lengths {
    One,
    Both,
    /// The block was not seen from its beginning, because the client sent it before the request before was answered.
    Unseen,
}

impl Pulse {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            protocol: Protocol::Preface(0),
            in_flight: 0,
            idle_since: Instant::now(),
            header_since: None,
            framing: Framing::default(),
            blocked_since: None,
            blocked_before: Duration::ZERO,
            head_due: false,
            unread: false,
            upgraded: false,
        })))
    }

    /// The client sent these bytes.
    pub(super) fn received(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        let mut replayed = 0;
        if let Protocol::Preface(matched) = state.protocol {
            let rest = &PREFACE[matched..];
            let compared = rest.len().min(bytes.len());
            state.protocol = if rest[..compared] != bytes[..compared] {
                replayed = matched;
                Protocol::Http1
            } else if compared == rest.len() {
                Protocol::Http2
            } else {
                Protocol::Preface(matched + compared)
            };
        }
        if matches!(state.protocol, Protocol::Http1) && state.in_flight == 0 && !state.framing.is_complete() {
            state.header_since.get_or_insert_with(Instant::now);
            state.framing.read(&PREFACE[..replayed]);
            state.framing.read(bytes);
        }
    }

    /// The client does not take bytes at the moment.
    pub(super) fn write_blocked(&self) {
        self.0.lock().blocked_since.get_or_insert_with(Instant::now);
    }

    /// The client took so many bytes. Reading is judged as bodies are: whoever falls behind the pace uses up the time
    /// that it may leave bytes unread.
    pub(super) fn write_progressed(&self, bytes: usize, limits: &Limits) {
        let mut state = self.0.lock();
        if let Some(since) = state.blocked_since.take() {
            state.blocked_before += since.elapsed();
        }
        if !state.blocked_before.is_zero() {
            let earned = Duration::from_secs_f64(bytes as f64 / limits.answer_bytes_per_second.max(1) as f64);
            state.blocked_before = state.blocked_before.saturating_sub(earned);
        }
    }

    /// A handler's answer is handed over, to be written next.
    pub(super) fn answered(&self) {
        self.0.lock().head_due = true;
    }

    /// Whether the head that is written now is that of a handler's answer.
    pub(super) fn takes_head(&self) -> bool {
        let mut state = self.0.lock();
        // What is not HTTP/1 begins no bytes with its name but by chance.
        !matches!(state.protocol, Protocol::Http1) || state.upgraded || std::mem::take(&mut state.head_due)
    }

    /// A request will not be read to its end.
    pub(super) fn leaves_unread(&self) {
        self.0.lock().unread = true;
    }

    /// Whether some request was not read to its end.
    pub(super) fn has_unread(&self) -> bool {
        self.0.lock().unread
    }

    /// A request has come; it is in flight until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> (InFlight, Lengths) {
        let mut state = self.0.lock();
        state.in_flight += 1;
        state.header_since = None;
        state.unread = false;
        let framing = std::mem::take(&mut state.framing);
        let lengths = match (framing.is_complete(), framing.is_ambiguous()) {
            (true, true) => Lengths::Both,
            (true, false) => Lengths::One,
            (false, _) => Lengths::Unseen,
        };
        (InFlight(Arc::clone(self)), lengths)
    }

    /// The connection speaks another protocol from now on.
    pub(super) fn upgraded(&self) {
        self.0.lock().upgraded = true;
    }

    /// Whether the connection is to end, or when to look again.
    ///
    /// While memory is `short`, bytes may be left unread for a short time only, and connections of HTTP/2 rest as short.
    pub(super) fn judge(&self, limits: &Limits, short: bool) -> Result<Instant, Verdict> {
        let state = self.0.lock();
        let now = Instant::now();
        // Never later than the shortest of the times from now on, so that what begins meanwhile is seen in time.
        let mut next = now + limits.header_timeout.min(limits.write_timeout).min(limits.idle_timeout);
        let mut until = |since: Instant, timeout: Duration, verdict: Verdict| {
            let deadline = since + timeout;
            if deadline <= now {
                return Err(verdict);
            }
            next = next.min(deadline);
            Ok(())
        };
        if state.upgraded {
            return Ok(next);
        }
        if let Some(since) = state.blocked_since {
            let patience = limits.patience(short).saturating_sub(state.blocked_before);
            until(since, patience, Verdict::Unread)?;
        }
        if state.in_flight == 0 {
            match (&state.protocol, state.header_since) {
                (Protocol::Preface(_), _) => until(state.idle_since, limits.header_timeout, Verdict::Header)?,
                (_, Some(since)) => until(since, limits.header_timeout, Verdict::Header)?,
                // The last piece of an answer that its client does not take lies in the protocol's buffer, where nothing
                // ends it but the end of the connection.
                (Protocol::Http2, None) if short => {
                    until(state.idle_since, limits.patience(short).min(limits.idle_timeout), Verdict::Idle)?;
                }
                (_, None) => until(state.idle_since, limits.idle_timeout, Verdict::Idle)?,
            }
        }
        Ok(next)
    }
}

/// One request, until its answer has ended.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Pulse>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.in_flight -= 1;
        if state.in_flight == 0 {
            state.idle_since = Instant::now();
        }
    }
}
