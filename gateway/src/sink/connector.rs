use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use super::AddressPolicy;

/// Resolves a host, checks every address that it has, and connects to the first that answers. Literal addresses take the
/// same way, also those in the odd forms that a resolver understands.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) policy: AddressPolicy,
    pub(super) timeout: Duration,
}

/// Not an [`std::io::Error`]: that hides the error inside it from whoever follows the sources.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An address is not allowed; found again below the client's error.
#[derive(Debug)]
pub(super) struct Forbidden {
    host: String,
    address: IpAddr,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} has the address {}, which is not public", self.host, self.address)
    }
}

impl std::error::Error for Forbidden {}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, Cause>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let Self { policy, timeout } = *self;
        Box::pin(async move {
            match tokio::time::timeout(timeout, connect(policy, &target)).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err(format!("no connection within {timeout:?}").into()),
            }
        })
    }
}

async fn connect(policy: AddressPolicy, target: &Uri) -> Result<TcpStream, Cause> {
    let host = target.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let default_port = if target.scheme_str() == Some("https") { 443 } else { 80 };
    let port = target.port_u16().unwrap_or(default_port);
    let resolved = tokio::net::lookup_host((host, port)).await;
    let addresses: Vec<SocketAddr> =
        resolved.map_err(|error| format!("the name {host} cannot be resolved: {error}"))?.collect();
    // One forbidden address condemns the name: whoever mixes them means to have one of them reached sooner or later.
    if let Some(address) = addresses.iter().map(SocketAddr::ip).find(|address| !policy.allows(*address)) {
        return Err(Forbidden { host: host.to_owned(), address }.into());
    }
    let mut last = format!("the name {host} has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last.into())
}
