//! Reads which server process answered the login, from the client of a connection. Sends nothing.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// The process that the server named at login. The driver reveals it only in a cancel request, so one is written to
/// memory.
pub(super) async fn named_process(client: &tokio_postgres::Client) -> i32 {
    let mut request = Recorder(Vec::new());
    // Writing to memory does not fail.
    let _ = client.cancel_token().cancel_query_raw(&mut request, NoHandshake).await;
    // The request ends with the process and its secret, four bytes each.
    let process = request.0.iter().rev().skip(4).take(4).rev();
    process.fold(0, |number, byte| number << 8 | i32::from(*byte))
}

/// A stream in memory: records what is written, and accepts TLS without a handshake.
struct Recorder(Vec<u8>);

impl AsyncRead for Recorder {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        buffer.put_slice(b"S");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for &mut Recorder {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

struct NoHandshake;

impl<'a> TlsConnect<&'a mut Recorder> for NoHandshake {
    type Stream = &'a mut Recorder;
    type Error = Infallible;
    type Future = Ready<Result<Self::Stream, Infallible>>;

    fn connect(self, stream: &'a mut Recorder) -> Self::Future {
        ready(Ok(stream))
    }
}
