//! The bytes beneath a connection: TCP, or TLS above it, by the same libraries as every other connection of the product. The
//! AMQP library asks for a runtime that makes its connections; ours are made here, and can be ended without a word.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tidegate_backbone::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::error::misconfigured;
use crate::options::Options;

/// A runtime whose connections are [`Wire`]s.
pub(crate) type Kit = RuntimeParts<Tokio, Connections>;

/// The runtime for the AMQP library.
pub(crate) fn runtime() -> Runtime<Kit> {
    Runtime::new(RuntimeParts::new(Tokio::current(), Connections(Tokio::current())))
}

/// See [`Kit`]; time is Tokio's.
#[derive(Clone, Debug)]
pub(crate) struct Connections(Tokio);

impl Reactor for Connections {
    type TcpStream = Wire;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static> {
        // The library is given every connection, and registers none of its own.
        Err::<Wire, _>(io::Error::from(io::ErrorKind::Unsupported))
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    #[expect(clippy::manual_async_fn, reason = "the future must not borrow what makes it")]
    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        async move { Ok(Wire::new(Box::new(TcpStream::connect(address).await?), &CancellationToken::new())) }
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that ends at once where that is asked for.
pub(crate) struct Wire {
    io: Box<dyn Io>,
    /// Of reading and writing, each of which is woken by itself.
    ended: [Option<Ended>; 2],
}

impl Wire {
    fn new(io: Box<dyn Io>, end: &CancellationToken) -> Self {
        let ended = || -> Option<Ended> { Some(Box::pin(end.clone().cancelled_owned())) };
        Self { io, ended: [ended(), ended()] }
    }

    /// Connects to that host, over TLS where there is a configuration for it.
    pub(crate) async fn connect(
        host: &str,
        port: u16,
        tls: Option<Arc<ClientConfig>>,
        end: &CancellationToken,
    ) -> io::Result<Self> {
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Self::new(Box::new(tcp), end)) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls).connect(name, tcp).await?;
        Ok(Self::new(Box::new(stream), end))
    }

    fn check(&mut self, side: usize, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(ended) = &mut self.ended[side] {
            if ended.as_mut().poll(context).is_pending() {
                return Ok(());
            }
            self.ended[side] = None;
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was let go of"))
    }
}

impl futures_io::AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.check(0, context)?;
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *self.io).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl futures_io::AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(1, context)?;
        Pin::new(&mut *self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(1, context)?;
        Pin::new(&mut *self.io).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(context)
    }
}

/// The configuration of TLS, where it is wanted.
pub(crate) fn tls(options: &Options) -> Result<Option<Arc<ClientConfig>>> {
    let Some(tls) = &options.tls else { return Ok(None) };
    let mut roots = rustls::RootCertStore::empty();
    let unreadable = |path: &std::path::Path, error: rustls::pki_types::pem::Error| -> Error {
        misconfigured(format!("cannot read {} for the connection to RabbitMQ", path.display())).with_source(error)
    };
    match &tls.ca {
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(path, error))? {
                let certificate = certificate.map_err(|error| unreadable(path, error))?;
                roots.add(certificate).map_err(|error| {
                    misconfigured(format!("{} holds no certificate of an authority", path.display())).with_source(error)
                })?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| misconfigured("TLS cannot be set up").with_source(error))?
        .with_root_certificates(roots);
    let configuration = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: std::result::Result<Vec<_>, _> =
                CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
            let chain = chain.map_err(|error| unreadable(certificate, error))?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| {
                let (certificate, key) = (certificate.display(), key.display());
                misconfigured(format!("{certificate} and {key} do not belong to each other")).with_source(error)
            })?
        }
    };
    Ok(Some(Arc::new(configuration)))
}
