//! The floor: the bare loop that everything is compared with, one `send(2)` per socket of one encoded frame. On request the
//! same sockets get what comes from Redis (`forward`).
//!
//! A process with one thread, so that its CPU time is this loop's and nothing else's. (`write` on a socket of the
//! standard library is `send(2)` with `MSG_NOSIGNAL`.)

use std::{
    io::{self, BufRead, Write},
    net::{TcpListener, TcpStream},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use carillon::{
    hub::Frame,
    protocol::{Areas, EntryId, Event, Lineage, Topic},
};

use super::{
    forward::Forwarder,
    order::{Answer, Order},
    plan,
};

/// Runs until stdin ends.
pub(super) fn run() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    tell(&Answer::Listening(listener.local_addr()?))?;
    let areas = Areas::new(["comments"], [], [])?;
    let topic = Topic::parse("comments:b0", &areas)?;
    let mut sockets = Vec::new();
    let mut forwarder = None;
    for line in io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Order::Accept(count) => {
                for _ in 0..count {
                    let (socket, _) = listener.accept()?;
                    socket.set_nodelay(true)?;
                    socket.set_nonblocking(true)?;
                    sockets.push(socket);
                }
            }
            Order::Send { from, events, bytes, stride } => {
                for e in from..from + events {
                    let followers = sockets.iter_mut().skip((e % stride) as usize).step_by(stride as usize);
                    send(followers, &topic, e / stride + 1, bytes)?;
                }
            }
            Order::Follow { redis, channels } => forwarder = Some(Forwarder::start(redis, &channels)?),
            Order::Forward { events, stride } => {
                let forwarder = forwarder.as_mut().context("nothing is followed")?;
                forwarder.forward(events, &mut sockets, stride as usize)?;
            }
            _ => bail!("that is for a reader"),
        }
        tell(&Answer::Done)?;
    }
    Ok(())
}

fn send<'a>(
    sockets: impl Iterator<Item = &'a mut TcpStream>,
    topic: &Topic,
    n: u64,
    bytes: usize,
) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let event = Event::parse(Bytes::from(plan::event(n, now.as_nanos() as u64, bytes)), usize::MAX)?;
    // As long as a node's on Redis: 16 digits of lineage, 13 of the epoch.
    let position = (Lineage::new("0123456789abcdef"), EntryId { epoch: now.as_millis() as u64, seq: n });
    let frame = Frame::new(topic.clone(), Some(position), now.as_millis() as u64, &event);
    for socket in sockets {
        let written =
            socket.write(frame.bytes()).context("a socket of the floor has no room: send less at a time")?;
        if written != frame.bytes().len() {
            bail!("a socket of the floor has no room: send less at a time");
        }
    }
    Ok(())
}

fn tell(answer: &Answer) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}
