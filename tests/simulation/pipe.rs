//! The connection between a client and a node, as bytes: a socket buffer of a given size in one direction, any number of
//! bytes in the other. It is a `Scripted` socket for outboxes that write by themselves, and a stream for those that are
//! emptied by their task (as with TLS).

use std::{
    collections::VecDeque,
    io,
    net::Shutdown,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use carillon::hub::Scripted;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug, Default)]
struct State {
    /// What the node has written and the client has not read.
    down: VecDeque<u8>,
    room: usize,
    /// What the client has written and the node has not read.
    up: VecDeque<u8>,
    /// The client is gone: reads end, writes fail.
    client_gone: bool,
    /// The node is gone or has closed.
    node_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One connection, as its client holds it.
#[derive(Debug, Clone)]
pub(crate) struct Pipe(Arc<Mutex<State>>);

/// The node's end of a connection: when it is dropped the connection ends, as a socket's does.
#[derive(Debug)]
pub(crate) struct NodeEnd(Pipe);

impl Pipe {
    /// A connection whose client takes `room` bytes before it must read.
    pub(crate) fn new(room: usize) -> Self {
        Self(Arc::new(Mutex::new(State { room, ..State::default() })))
    }

    /// The node's end; there is one.
    pub(crate) fn node_end(&self) -> NodeEnd {
        NodeEnd(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client reads up to so many bytes.
    pub(crate) fn client_reads(&self, most: usize) -> Vec<u8> {
        let mut state = self.lock();
        let count = most.min(state.down.len());
        let bytes = state.down.drain(..count).collect();
        if count > 0
            && let Some(waker) = state.writer.take()
        {
            waker.wake();
        }
        bytes
    }

    /// How many bytes wait for the client.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().down.len()
    }

    /// The client writes.
    pub(crate) fn client_writes(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.up.extend(bytes);
        if let Some(waker) = state.reader.take() {
            waker.wake();
        }
    }

    /// The client's end is gone.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.client_gone = true;
        for waker in [state.reader.take(), state.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// Whether the node has closed, and everything before that was read.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.lock();
        state.node_gone && state.down.is_empty()
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        if state.client_gone {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let room = state.room.saturating_sub(state.down.len()).min(bytes.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.down.extend(&bytes[..room]);
        Ok(room)
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.lock();
        let count = buffer.len().min(state.up.len());
        if count == 0 {
            return if state.client_gone { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        for (place, byte) in buffer.iter_mut().zip(state.up.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }
}

impl Drop for NodeEnd {
    fn drop(&mut self) {
        self.0.lock().node_gone = true;
    }
}

impl Scripted for NodeEnd {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if !state.up.is_empty() || state.client_gone {
            return Poll::Ready(Ok(()));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.down.len() < state.room || state.client_gone {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn shutdown(&self, _how: Shutdown) {
        self.0.lock().node_gone = true;
    }
}

impl AsyncRead for NodeEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut bytes = vec![0; buf.remaining()];
        match self.0.read(&mut bytes) {
            Ok(count) => {
                buf.put_slice(&bytes[..count]);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.0.lock().reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for NodeEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.0.lock().writer = Some(cx.waker().clone());
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().node_gone = true;
        Poll::Ready(Ok(()))
    }
}
