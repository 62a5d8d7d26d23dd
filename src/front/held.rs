//! The bytes of an HTTP/2 connection: small frames are gathered, and held back while more answers come.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered before they are written: four records of TLS.
const GATHERED_MAX: usize = 64 * 1024;

/// Whether what is written is held back for what comes next, and whether anything was.
#[derive(Default)]
pub struct Hold {
    is_on: AtomicBool,
    has_held: AtomicBool,
}

impl Hold {
    /// Holds back what is written meanwhile, or not.
    pub fn during<T>(&self, holds: bool, work: impl FnOnce() -> T) -> T {
        self.is_on.store(holds, Ordering::Relaxed);
        let done = work();
        self.is_on.store(false, Ordering::Relaxed);
        done
    }

    /// Was anything held back since it was last asked?
    pub fn take_held(&self) -> bool {
        self.has_held.swap(false, Ordering::Relaxed)
    }
}

/// A connection of which some bytes have been read, and whose frames are gathered: many small ones are one write, and one
/// record of TLS.
pub struct Held {
    prefix: BytesMut,
    io: Stream,
    hold: Arc<Hold>,
    /// Not more than [`GATHERED_MAX`]; nothing while the connection is idle.
    out: BytesMut,
    /// Has everything that `io` took left it? TLS takes bytes that it cannot write yet.
    is_flushed: bool,
}

impl Held {
    pub fn new(prefix: BytesMut, io: Stream, hold: Arc<Hold>) -> Self {
        Self { prefix, io, hold, out: BytesMut::new(), is_flushed: true }
    }

    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            self.is_flushed = false;
            match ready!(Pin::new(&mut self.io).poll_write(context, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.out.advance(written),
            }
        }
        self.out = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buf);
        }
        let take = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..take]);
        self.prefix.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.out.len() >= GATHERED_MAX {
            ready!(self.poll_out(context))?;
        }
        let taken = data.len().min(GATHERED_MAX - self.out.len());
        self.out.extend_from_slice(&data[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hold.is_on.load(Ordering::Relaxed) {
            if !self.out.is_empty() || !self.is_flushed {
                self.hold.has_held.store(true, Ordering::Relaxed);
            }
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_out(context))?;
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
