//! Why a WebSocket ends, as the client is told (RFC 6455 section 7.4).
//!
//! What concerns the protocol has the codes of the RFC. What concerns events has 4000 and the status that HTTP would have
//! answered with, from the range that is left to applications; the reason begins with the problem's code.

use tidegate_schemas::websocket::Refusal;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as SocketError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::super::publish;
use crate::edge::problem::Problem;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// The client closed it, or is gone.
    Left,
    /// The client does not read what it is sent, or gives no sign of life: it would not read a farewell either.
    Unresponsive(&'static str),
    /// The client is told.
    Told(CloseFrame),
}

/// What a reason may take: a control frame has 125 bytes, of which the code takes two.
const REASON_BYTES: usize = 123;
/// Where the codes begin that are made of a status of HTTP.
const STATUS_CODES: u16 = 4_000;

impl Ending {
    fn told(code: CloseCode, reason: &str) -> Self {
        Self::Told(CloseFrame { code, reason: reason[..reason.floor_char_boundary(REASON_BYTES)].into() })
    }

    /// The gateway stops.
    pub(super) fn stopping() -> Self {
        Self::told(CloseCode::Away, "shutting-down: the gateway stops; connect again")
    }

    /// The client does not keep to the subprotocol.
    pub(super) fn of_refusal(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Frame(_) => Self::told(CloseCode::Unsupported, &refusal.to_string()),
            Refusal::Event(error) => Self::of_problem(&publish::problem(error)),
        }
    }

    /// An event is not stored, or the topic cannot be followed.
    pub(super) fn of_problem(problem: &Problem) -> Self {
        let code = problem.code();
        // What is wrong says more in so few bytes than that something is.
        let detail = match problem.faults().first() {
            Some(fault) => fault.to_string(),
            None => problem.detail().to_owned(),
        };
        Self::told(CloseCode::from(STATUS_CODES + code.status().as_u16()), &format!("{}: {detail}", code.name()))
    }

    /// The socket cannot be read any more.
    pub(super) fn of_error(error: SocketError) -> Self {
        match error {
            SocketError::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
                Self::told(CloseCode::Size, &format!("a message has more than {max_size} bytes"))
            }
            SocketError::Utf8(_) => Self::told(CloseCode::Invalid, "a text frame is not UTF-8"),
            SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Left,
            SocketError::Protocol(error) => Self::told(CloseCode::Protocol, &error.to_string()),
            // Broken or closed.
            _ => Self::Left,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_schemas::{Event, Faults};

    use super::*;
    use crate::edge::problem::Code;

    fn told(ending: Ending) -> (u16, String) {
        let Ending::Told(frame) = ending else { panic!("{ending:?}") };
        (frame.code.into(), frame.reason.to_string())
    }

    #[test]
    fn problems_are_told_by_their_status_and_code() {
        let faults: Faults = Event::builder("", "", "t").build().unwrap_err();
        let (code, reason) = told(Ending::of_problem(&Problem::from(faults)));
        assert_eq!((code, reason.starts_with("invalid-event: id: ")), (4_400, true), "{reason}");
        let problem = Problem::new(Code::TopicNotFound, "There is no topic t.");
        assert_eq!(told(Ending::of_problem(&problem)), (4_404, "topic-not-found: There is no topic t.".to_owned()));
        // A reason is cut between characters, within what a control frame holds.
        let (_, reason) = told(Ending::of_problem(&Problem::new(Code::Internal, "\u{e4}".repeat(200))));
        assert!((122..=123).contains(&reason.len()), "{}", reason.len());
        for code in Code::ALL {
            assert!((4_400..4_600).contains(&told(Ending::of_problem(&Problem::new(*code, ""))).0));
        }
    }
}
