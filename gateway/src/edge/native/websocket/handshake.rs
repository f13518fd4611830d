//! The opening handshake (RFC 6455 section 4.2). By hand and not by axum's extractor, which waits for the upgrade in a task
//! that shutdown does not know, and gives no way to the connection below, which a farewell needs.

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tidegate_schemas::{Format, limits, websocket as binding};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::edge::problem::{Code, Problem};

/// A connection that speaks WebSocket.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A client's request for a WebSocket that can be granted.
pub(super) struct Handshake {
    /// What messages are written in.
    pub(super) format: Format,
    accept: HeaderValue,
    upgrade: OnUpgrade,
}

impl Handshake {
    /// Reads the header of the request.
    pub(super) fn read(parts: &mut Parts) -> Result<Self, Problem> {
        let refuse = |detail: &str| {
            let detail = format!("{detail}; open a WebSocket over HTTP/1.1, version 13 (RFC 6455).");
            Problem::new(Code::UpgradeRequired, detail)
        };
        let headers = &parts.headers;
        if parts.version != Version::HTTP_11 {
            return Err(refuse("The request is not HTTP/1.1"));
        }
        if !names(headers, header::UPGRADE, "websocket") || !names(headers, header::CONNECTION, "upgrade") {
            return Err(refuse("The request does not ask for an upgrade to websocket"));
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(refuse("Sec-WebSocket-Version is not 13"));
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
        if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != NONCE_BYTES {
            return Err(refuse("Sec-WebSocket-Key is not 16 bytes in base64"));
        }
        let accept =
            HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| refuse("The key cannot be answered"))?;
        let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let format = binding::negotiate(offers).ok_or_else(|| {
            let detail = "Sec-WebSocket-Protocol offers no format that is spoken here; offer cloudevents.json or \
                          cloudevents.proto.";
            Problem::new(Code::InvalidArgument, detail)
        })?;
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or_else(|| refuse("The connection cannot be upgraded"))?;
        Ok(Self { format, accept, upgrade })
    }

    /// The answer that grants it.
    pub(super) fn answer(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let fields = [
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_ACCEPT, self.accept.clone()),
            (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(binding::subprotocol(self.format))),
        ];
        response.headers_mut().extend(fields);
        response
    }

    /// The connection, once the answer is sent; nothing where the client has left by then.
    pub(super) async fn upgraded(self) -> Option<Socket> {
        let upgraded = self.upgrade.await.ok()?;
        let config = WebSocketConfig::default()
            .read_buffer_size(limits::WEBSOCKET_READ_BUFFER_BYTES)
            // Every message is sent when it is written, so that nothing waits behind one that the client does not take.
            .write_buffer_size(0)
            .max_message_size(Some(limits::WEBSOCKET_MESSAGE_BYTES))
            .max_frame_size(Some(limits::WEBSOCKET_MESSAGE_BYTES));
        Some(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await)
    }
}

/// The bytes of the key, decoded.
const NONCE_BYTES: usize = 16;

/// Whether a field, which is a list, names something, in any letter case.
fn names(headers: &HeaderMap, field: HeaderName, name: &str) -> bool {
    let values = headers.get_all(field).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|element| element.trim().eq_ignore_ascii_case(name))
}
