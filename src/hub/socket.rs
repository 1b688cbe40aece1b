//! The socket of an outbox: a TCP stream, used without waiting.
//!
//! In a build with the feature `simulation` it may also be a scripted one, which takes as many bytes as a schedule says
//! (tests/simulation). In every other build there is one kind, and the wrapper is nothing at all.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    task::{Context, Poll},
};

#[cfg(target_os = "linux")]
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The end of a record (send(2)): the kernel does not join these bytes with others.
#[cfg(target_os = "linux")]
const MSG_EOR: i32 = 0x80;

/// A socket that a scheduler drives. All calls come back at once; `WouldBlock` where a real socket would say so.
#[cfg(feature = "simulation")]
pub trait Scripted: std::fmt::Debug + Send + Sync {
    /// Takes some of the bytes.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Gives what has come from the client.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Whether there is something to read; wakes when there is.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Whether there is room; wakes when there is.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends one direction or both.
    fn shutdown(&self, how: Shutdown);
}

/// The socket of a session.
#[derive(Debug)]
pub enum Socket {
    /// A real one.
    Tcp(TcpStream),
    /// One in a simulation.
    #[cfg(feature = "simulation")]
    Scripted(Box<dyn Scripted>),
}

/// One call for either kind.
macro_rules! either {
    ($self:ident . $method:ident ( $($arg:expr),* )) => {
        match $self {
            Self::Tcp(socket) => socket.$method($($arg),*),
            #[cfg(feature = "simulation")]
            Self::Scripted(socket) => socket.$method($($arg),*),
        }
    };
}

impl Socket {
    /// Writes what the socket takes at once.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // Most sockets have room: tokio is asked only by those that have none, and then wakes them.
            Self::Tcp(socket) => match socket2::SockRef::from(socket).send(bytes) {
                Err(full) if full.kind() == io::ErrorKind::WouldBlock => socket.try_write(bytes),
                written => written,
            },
            #[cfg(feature = "simulation")]
            Self::Scripted(socket) => socket.try_write(bytes),
        }
    }

    /// Writes what the socket takes at once, so that the kernel does not join it with later bytes. A socket that holds nothing
    /// ([`Socket::hold_nothing`]) then takes nothing more until these bytes are on their way.
    pub fn try_write_apart(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // Otherwise the kernel puts small pieces behind what waits already, whatever may wait.
            #[cfg(target_os = "linux")]
            Self::Tcp(socket) => socket.try_io(Interest::WRITABLE, || {
                socket2::SockRef::from(socket).send_with_flags(bytes, MSG_EOR)
            }),
            #[cfg(any(not(target_os = "linux"), feature = "simulation"))]
            _ => self.try_write(bytes),
        }
    }

    /// Writes what the socket takes at once of several pieces.
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write_vectored(pieces),
            #[cfg(feature = "simulation")]
            Self::Scripted(socket) => {
                let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
                socket.try_write(&all)
            }
        }
    }

    /// Reads what has come.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self.try_read(buffer))
    }

    /// Waits until there is something to read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_read_ready(cx))
    }

    /// Waits until there is room to write.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_write_ready(cx))
    }

    /// Waits until there is room to write.
    pub async fn writable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_write_ready(cx)).await
    }

    /// Ends one direction or both, also for others who hold this socket. An error (it is closed already) does not matter.
    pub fn shutdown(&self, how: Shutdown) {
        match self {
            Self::Tcp(socket) => drop(socket2::SockRef::from(socket).shutdown(how)),
            #[cfg(feature = "simulation")]
            Self::Scripted(socket) => socket.shutdown(how),
        }
    }

    /// From now on the socket takes something only when all that it has taken is on its way: what a client does not read
    /// then shows here at once, and not when the kernel's buffers are full.
    pub fn hold_nothing(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Tcp(socket) => drop(socket2::SockRef::from(socket).set_tcp_notsent_lowat(1)),
            // Where there is no such option, the buffers fill up first.
            #[cfg(not(target_os = "linux"))]
            Self::Tcp(_) => {}
            #[cfg(feature = "simulation")]
            Self::Scripted(_) => {}
        }
    }

    /// The real socket, for its options.
    #[cfg(test)]
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(socket) => socket,
            #[cfg(feature = "simulation")]
            Self::Scripted(_) => unreachable!("unit tests use real sockets"),
        }
    }
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(socket)
    }
}
