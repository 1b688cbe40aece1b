//! A reader: a process with one thread and one epoll that holds many sessions and checks what they receive.
//!
//! It obeys orders from stdin and answers on stdout (`order`).

use std::{
    collections::VecDeque,
    io::{BufRead, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use super::{
    connection::{Connection, ConnectionStage},
    order::{Answer, Connected, Figures, Order, Side},
    plan::Plan,
};

const ORDERS: Token = Token(usize::MAX);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(2);
/// The receive buffer of a session that will not be read: the node shall feel it soon.
const SMALL_BUFFER: usize = 4096;
/// Source addresses on loopback, each with its own ports.
const SOURCES: u32 = 8;

/// Sessions that are still to be opened.
struct Opening {
    plan: Plan,
    queue: VecDeque<u32>,
    under_way: usize,
    events: u64,
    result: Connected,
}

struct Reader {
    poll: Poll,
    lines: Slab<Connection>,
    chunk: Vec<u8>,
    opening: Option<Opening>,
    /// Figures of all sides since they were asked for, and what was counted before that.
    figures: [Figures; 3],
    before: [u64; 3],
    told: ([u64; 3], Instant),
    held: bool,
}

/// Runs until stdin ends.
pub(super) fn run() -> Result<()> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), ORDERS)?);
    let (sender, orders) = sync_channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
            let _ = waker.wake();
        }
        drop(sender);
        let _ = waker.wake();
    });
    let mut reader = Reader {
        poll,
        lines: Slab::new(),
        chunk: vec![0; 256 * 1024],
        opening: None,
        figures: Default::default(),
        before: [0; 3],
        told: ([0; 3], Instant::now()),
        held: false,
    };
    reader.work(&orders)
}

impl Reader {
    fn work(&mut self, orders: &Receiver<String>) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let wait = (self.counted() != self.told.0).then_some(TELL);
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => result?,
            }
            for event in &events {
                if event.token() == ORDERS {
                    loop {
                        match orders.try_recv() {
                            Ok(order) => self.obey(serde_json::from_str(&order)?)?,
                            Err(TryRecvError::Empty) => break,
                            Err(TryRecvError::Disconnected) => return Ok(()),
                        }
                    }
                } else {
                    self.turn(event.token().0, event.is_writable(), event.is_readable());
                }
            }
            self.open_more();
            self.tell_progress()?;
        }
    }

    fn obey(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Connect { plan, first, count, events } => {
                let result = Connected { followers: vec![0; plan.topics as usize], ..Connected::default() };
                let queue = (first..first + count).collect();
                self.opening = Some(Opening { plan, queue, under_way: 0, events, result });
                return Ok(());
            }
            Order::ConnectFloor { address, count } => {
                let mut connected = Connected::default();
                for number in 0..count {
                    self.open_floor(address, number).context("connecting to the floor")?;
                    connected.welcomed += 1;
                }
                return tell(&Answer::Connected(connected));
            }
            Order::Figures(side) => {
                self.before[side as usize] += counted(&self.figures[side as usize]);
                let figures = std::mem::take(&mut self.figures[side as usize]);
                return tell(&Answer::Figures(Box::new(figures)));
            }
            Order::Slow(hold) => self.hold(hold)?,
            Order::Leave => self.lines.retain(|_, line| line.side == Side::Floor),
            Order::Accept(_) | Order::Send { .. } | Order::Follow { .. } | Order::Forward { .. } => {
                anyhow::bail!("that is for the floor")
            }
        }
        tell(&Answer::Done)
    }

    fn turn(&mut self, key: usize, writable: bool, readable: bool) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let before = line.stage.clone();
        let figures = &mut self.figures[line.side as usize];
        if writable {
            line.writable();
        }
        if readable && !(self.held && line.side == Side::Slow) {
            line.readable(&mut self.chunk, figures);
        }
        if line.stage == before {
            return;
        }
        let joined = line.stage == ConnectionStage::Following;
        if let ConnectionStage::Ended(reason) = &line.stage {
            let reason = reason.clone();
            if before == ConnectionStage::Following {
                *figures.ended.entry(reason).or_default() += 1;
            } else if let Some(opening) = &mut self.opening {
                opening.under_way -= 1;
                *opening.result.failed.entry(reason).or_default() += 1;
            }
            self.lines.remove(key);
        } else if joined && let Some(opening) = &mut self.opening {
            opening.under_way -= 1;
            opening.result.welcomed += 1;
            opening.result.times.note(line.began.elapsed().as_micros() as u64);
            for topic in line.topics().filter(|_| line.side == Side::Node) {
                opening.result.followers[topic as usize] += 1;
            }
        }
    }

    fn open_more(&mut self) {
        let Some(mut opening) = self.opening.take() else { return };
        while opening.under_way < opening.plan.at_once
            && let Some(number) = opening.queue.pop_front()
        {
            match self.open(&opening, number) {
                Ok(()) => opening.under_way += 1,
                Err(error) => *opening.result.failed.entry(error.to_string()).or_default() += 1,
            }
        }
        if opening.queue.is_empty() && opening.under_way == 0 {
            // The bench is gone if this cannot be told, and stdin ends.
            let _ = tell(&Answer::Connected(opening.result));
        } else {
            self.opening = Some(opening);
        }
    }

    fn open(&mut self, opening: &Opening, number: u32) -> Result<()> {
        let plan = &opening.plan;
        let node = plan.nodes.get(number as usize % plan.nodes.len().max(1)).context("no nodes")?;
        let socket = socket(node.address, number)?;
        if number < plan.slow {
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
        }
        socket.set_nonblocking(true)?;
        // EINPROGRESS is how a connect begins that does not block; a refusal shows when the socket becomes writable.
        let _ = socket.connect(&node.address.into());
        let stream = TcpStream::from_std(socket.into());
        let last = |topic| plan.published(topic, opening.events);
        self.register(Connection::session(stream, plan, node, number, last))
    }

    fn open_floor(&mut self, address: SocketAddr, number: u32) -> Result<()> {
        let socket = socket(address, number)?;
        socket.connect(&address.into())?;
        socket.set_nonblocking(true)?;
        self.register(Connection::floor(TcpStream::from_std(socket.into())))
    }

    fn register(&mut self, line: Connection) -> Result<()> {
        let key = self.lines.insert(line);
        let stream = &mut self.lines[key].stream;
        self.poll.registry().register(stream, Token(key), Interest::READABLE | Interest::WRITABLE)?;
        Ok(())
    }

    /// Stops reading the slow sessions, or goes on.
    fn hold(&mut self, hold: bool) -> Result<()> {
        self.held = hold;
        for (key, line) in self.lines.iter_mut().filter(|(_, line)| line.side == Side::Slow) {
            // Registering anew makes an edge for what has come meanwhile.
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().reregister(&mut line.stream, Token(key), interest)?;
        }
        Ok(())
    }

    /// Of the node, of the floor, and sessions welcomed.
    fn counted(&self) -> [u64; 3] {
        let [node, floor] = [Side::Node as usize, Side::Floor as usize]
            .map(|side| self.before[side] + counted(&self.figures[side]));
        [node, floor, self.opening.as_ref().map_or(0, |opening| opening.result.welcomed)]
    }

    fn tell_progress(&mut self) -> Result<()> {
        let counted = self.counted();
        if counted == self.told.0 || self.told.1.elapsed() < TELL {
            return Ok(());
        }
        self.told = (counted, Instant::now());
        tell(&Answer::Progress { node: counted[0], floor: counted[1], welcomed: counted[2] })
    }
}

/// Events that nobody needs to wait for any more.
fn counted(figures: &Figures) -> u64 {
    figures.delivered + figures.lost + figures.resynced
}

fn socket(to: SocketAddr, number: u32) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    if to.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        let from = Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8);
        socket.bind(&SocketAddr::from((from, 0)).into()).context("no ports are left on loopback")?;
    }
    Ok(socket)
}

fn tell(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}
