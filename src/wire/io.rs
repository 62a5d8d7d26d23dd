//! Bytes from and to a connection: one read, one vectored write, each under a deadline.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// One read asks for at least so much room: a whole ordinary head, a quarter of a TLS record.
const READ_MIN: usize = 4 * 1024;
/// Room for one read of a response head: small bodies come with it.
pub const READ_HEAD: usize = 16 * 1024;
/// Room for one read of a body.
pub const READ_BODY: usize = 64 * 1024;
/// Slices of one vectored write; the kernel's `UIO_MAXIOV` is 1,024, more than 64 gain nothing.
const SLICES_MAX: usize = 64;

/// Why nothing came or went.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    #[error("timed out after {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads once into `buf`; `Ok(0)` is the end of the stream.
pub async fn read_some<R: AsyncRead + Unpin>(
    from: &mut R,
    buf: &mut BytesMut,
    room: usize,
    within: Duration,
) -> Result<usize, IoError> {
    buf.reserve(room.max(READ_MIN));
    match fast_timeout(within, from.read_buf(buf)).await {
        Ok(read) => Ok(read?),
        Err(_) => Err(IoError::Timeout(within)),
    }
}

/// Writes all of `pieces` in order and leaves the vector empty. `within` bounds each single write, so that a
/// slow reader is kept and a dead one is not.
pub async fn write_all<W: AsyncWrite + Unpin>(
    to: &mut W,
    pieces: &mut Vec<Bytes>,
    within: Duration,
) -> Result<(), IoError> {
    let mut first = 0;
    while first < pieces.len() {
        if pieces[first].is_empty() {
            first += 1;
            continue;
        }
        let write = poll_fn(|context| {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&pieces[first..]) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            Pin::new(&mut *to).poll_write_vectored(context, &slices[..count])
        });
        let mut written = match fast_timeout(within, write).await {
            Ok(written) => written?,
            Err(_) => return Err(IoError::Timeout(within)),
        };
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        while written > 0 {
            let step = written.min(pieces[first].len());
            pieces[first].advance(step);
            written -= step;
            if pieces[first].is_empty() {
                first += 1;
            }
        }
    }
    pieces.clear();
    match fast_timeout(within, to.flush()).await {
        Ok(flushed) => Ok(flushed?),
        Err(_) => Err(IoError::Timeout(within)),
    }
}
