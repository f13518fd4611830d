use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tidegate_schemas::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::Common;
use super::admission::Permit;
use super::pulse::Pulse;
use super::refusal;

/// Bytes that are read at once to be thrown away.
const LINGER_READ_BYTES: usize = 16 * 1024;

/// A connection that notes what it does, and keeps its place among the open ones as long as anybody holds it, be it the
/// protocol that it was upgraded to.
///
/// It also mends two things that the parser above it leaves open: what the parser refuses by itself gets a problem
/// document, and where a request was not read to its end the client is given time to hear the answer.
#[derive(Debug)]
pub(super) struct Transport {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    common: Arc<Common>,
    /// What goes out in place of the parser's own refusal.
    refusal: Option<Bytes>,
    closing: Closing,
    _permit: Permit,
}

#[derive(Debug)]
enum Closing {
    /// The writing side is open.
    Open,
    /// It is closed; what the client still sends is thrown away, so many bytes at most.
    Lingering {
        left_bytes: usize,
        timeout: Pin<Box<Sleep>>,
    },
    Done,
}

impl Transport {
    pub(super) fn new(stream: TcpStream, pulse: Arc<Pulse>, common: Arc<Common>, permit: Permit) -> Self {
        Self { stream, pulse, common, refusal: None, closing: Closing::Open, _permit: permit }
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) => self.pulse.write_progressed(*bytes, &self.common.options.limits),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.pulse.write_blocked(),
        }
    }

    /// Whether these bytes are a refusal by the parser, to be written with a document.
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        if self.refusal.is_none() && bytes.starts_with(b"HTTP/1.") && !self.pulse.takes_head() {
            self.refusal = refusal::of_parser(bytes);
            if self.refusal.is_some() {
                self.common.metrics.connection_refused("malformed");
                self.pulse.leaves_unread();
            }
        }
        self.refusal.is_some()
    }

    fn write_refusal(&mut self, context: &mut Context<'_>, replaced_bytes: usize) -> Poll<io::Result<usize>> {
        while let Some(refusal) = self.refusal.as_mut().filter(|refusal| !refusal.is_empty()) {
            let written = Pin::new(&mut self.stream).poll_write(context, refusal);
            if let Poll::Ready(Ok(bytes)) = &written {
                refusal.advance(*bytes);
            }
            self.note(&written);
            if ready!(written)? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        self.refusal = None;
        Poll::Ready(Ok(replaced_bytes))
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > filled {
            self.pulse.received(&buffer.filled()[filled..]);
        }
        read
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replaces(bytes) {
            return self.write_refusal(context, bytes.len());
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        if let Some(first) = first
            && self.replaces(first)
        {
            return self.write_refusal(context, first.len());
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Closing while unread bytes wait, or while more come, makes the kernel reset the connection, which can destroy the
    /// answer on its way. So the writing side is closed first, and what the client still sends is thrown away for a while.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.closing {
                Closing::Open => {
                    ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                    this.closing = if this.pulse.has_unread() {
                        let timeout = Box::pin(tokio::time::sleep(limits::LINGER_TIMEOUT));
                        Closing::Lingering { left_bytes: limits::LINGER_BYTES, timeout }
                    } else {
                        Closing::Done
                    };
                }
                Closing::Lingering { left_bytes, timeout } => {
                    let mut bytes = [0; LINGER_READ_BYTES];
                    let mut buffer = ReadBuf::new(&mut bytes);
                    let read = Pin::new(&mut this.stream).poll_read(context, &mut buffer);
                    let ended = match read {
                        Poll::Pending => {
                            ready!(timeout.as_mut().poll(context));
                            true
                        }
                        Poll::Ready(Err(_)) => true,
                        Poll::Ready(Ok(())) => {
                            let bytes = buffer.filled().len();
                            *left_bytes = left_bytes.saturating_sub(bytes);
                            bytes == 0 || *left_bytes == 0 || timeout.is_elapsed()
                        }
                    };
                    if ended {
                        this.closing = Closing::Done;
                    }
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
