//! Sessions, deadlines, TLS and pools: everything that touches a socket.

mod conninfo;
mod tls;
