//! Leaving without a reset: our side ends first, and what the client still sends is taken for a while.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::wire::{self, io::Timer};

/// How long and how much is read after the last answer, so that the client sees it before the connection resets.
const LINGER_FOR: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Ends our side and takes what the client still sends until it has ended too: a reset would take our last words with it
/// (RFC 9112 9.6).
pub async fn linger<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S) {
    let patience = async {
        if io.shutdown().await.is_err() {
            return;
        }
        let (mut sink, mut timer) = (BytesMut::new(), Timer::default());
        let mut taken = 0;
        while taken < LINGER_BYTES_MAX {
            sink.clear();
            match wire::io::read_some(io, &mut sink, wire::io::READ_BODY, LINGER_FOR, &mut timer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => taken += read,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_FOR, patience).await;
}
