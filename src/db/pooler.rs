//! Finds out whether a session keeps its server process. Behind a pooler in transaction mode it does not, and its
//! settings would reach other applications. Knows nothing of the tables.

use super::session::{Backend, Session};
use crate::error::{Error, Result};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// In how many rounds two sessions are asked for their server process. A pooler that lends the process released last
/// gives both the same process. A pooler that rotates, or has other clients, gives a session another process each time.
const ROUNDS: u32 = 3;

/// The error for a session that does not keep its server process.
pub(super) fn refusal() -> Error {
    Error::config(
        "the connection goes through a connection pooler in transaction mode (such as PgBouncer with \
         pool_mode=transaction or statement, PgCat, Odyssey, Supavisor or RDS Proxy): the session would not keep its \
         server process, and its settings would reach other applications, so nothing was set; connect to PostgreSQL \
         directly, or through a pool with pool_mode=session",
    )
}

/// Asks two sessions in turn which process serves them. Refuses unless each session keeps a process of its own.
pub(super) fn refuse_shared_processes(first: &mut Session, backend: Backend, second: &mut Session) -> Result<()> {
    let mut other = None;
    for _ in 0..ROUNDS {
        let now = second.look()?;
        if now == backend || *other.get_or_insert(now) != now || first.look()? != backend {
            return Err(refusal());
        }
    }
    Ok(())
}

/// Refuses if another process serves the session now.
pub(super) fn refuse_change(session: &mut Session, backend: Backend) -> Result<()> {
    for _ in 0..ROUNDS {
        if session.look()? != backend {
            return Err(refusal());
        }
    }
    Ok(())
}

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
