//! Outboxes against a model, over a real socket whose buffers are small and whose reader stops and goes: nothing is
//! reordered or written twice, only events are dropped, and only with an owed `resync` that comes before any further
//! event of their topic.

use std::{
    collections::BTreeSet,
    io::Read,
    net::{TcpListener, TcpStream as Reader},
    task::Waker,
    time::Duration,
};

use proptest::prelude::*;
use tokio::net::TcpStream;

use super::*;
use crate::protocol::{Areas, EntryId, ErrorCode, Event, Lineage, Reason, Topic, message::Positions};

/// Bytes of events that may wait.
const LIMIT: usize = 6000;
/// How long the end may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What can happen to an outbox.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// An event of a topic, written at once where that is possible (`lone`).
    Event { topic: usize, size: usize, lone: bool },
    /// What was left waiting is written.
    Flush,
    /// A message, which is never dropped.
    Message,
    /// Bytes for a socket.
    Ping,
    /// A piece of a log.
    Replay { topic: usize, count: usize },
    /// The client reads so many bytes.
    Read(usize),
    /// The session's task gets its turn.
    Turn,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    prop_oneof![
        10 => (0usize..3, 0usize..2000, any::<bool>()).prop_map(|(topic, size, lone)| H::Event { topic, size, lone }),
        3 => Just(H::Flush),
        2 => Just(H::Message),
        1 => Just(H::Ping),
        2 => (0usize..3, 1usize..80).prop_map(|(topic, count)| H::Replay { topic, count }),
        3 => (1usize..20_000).prop_map(H::Read),
        6 => Just(H::Turn),
    ]
}

/// What was handed over.
#[derive(Debug, Clone, PartialEq)]
enum HandedOver {
    /// An event, of this topic.
    Event(usize),
    /// A message that is never dropped.
    Message,
    /// The `resync` of these topics.
    Resync(Vec<usize>),
}

/// An outbox with what was done to it.
struct Model {
    outbox: Arc<Outbox>,
    handed: Vec<HandedOver>,
    /// Topics that a `resync` is owed for: the hub hands over no events of them.
    owed: Vec<usize>,
    /// Events up to this number may have been dropped, by topic; and where the `resync` that tells of it stands.
    dropped: Vec<(usize, Vec<usize>)>,
}

impl Model {
    fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, handed: Vec::new(), owed: Vec::new(), dropped: Vec::new() }
    }

    fn frame(&mut self, topic: usize, size: usize) -> Frame {
        let number = self.handed.len();
        self.handed.push(HandedOver::Event(topic));
        let json = format!(r#"{{"type":"a.b","n":{number},"s":"{}"}}"#, "x".repeat(size));
        let areas = Areas::new(["comments"], [], []).unwrap();
        let at = (Lineage::new("cafe"), EntryId { epoch: 1, seq: number as u64 });
        let topic = Topic::parse(&format!("comments:{topic}"), &areas).unwrap();
        Frame::new(topic, Some(at), 0, &Event::parse(json.into(), 9000).unwrap())
    }

    fn message(&mut self) -> NodeMessage {
        let detail = self.handed.len().to_string();
        self.handed.push(HandedOver::Message);
        NodeMessage::Error { code: ErrorCode::BadToken, detail }
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Event { topic, .. } if self.owed.contains(&topic) => {}
            Happening::Event { topic, size, lone } => {
                let frame = self.frame(topic, size);
                let taken = if lone { self.outbox.send(&frame) } else { self.outbox.push(&frame) };
                match taken {
                    Taken::Overflow(dropped) => self.overflow(topic, &dropped.topics),
                    Taken::Ended => panic!("taken for ended"),
                    Taken::Yes | Taken::First => {}
                }
            }
            Happening::Flush => self.outbox.flush(),
            Happening::Message => {
                let message = self.message();
                self.outbox.message(message);
            }
            Happening::Ping => self.outbox.raw(Bytes::from_static(crate::hub::frame::PING)),
            Happening::Replay { topic, .. } if self.owed.contains(&topic) => {}
            Happening::Replay { topic, count } => {
                let frames: Vec<Frame> = (0..count).map(|n| self.frame(topic, n * 7)).collect();
                self.outbox.replay(Replay::new(frames.into(), 0, count));
            }
            Happening::Read(_) | Happening::Turn => {}
        }
        assert!(self.outbox.lock().queue.event_bytes() <= LIMIT, "more waits than may");
    }

    fn overflow(&mut self, topic: usize, topics: &BTreeSet<Topic>) {
        let topics: Vec<usize> = topics.iter().map(|topic| topic.key().unwrap().parse().unwrap()).collect();
        assert!(topics.contains(&topic));
        assert!(self.outbox.owed_since().is_some(), "dropped, and nothing is owed");
        self.dropped.push((self.handed.len(), topics.clone()));
        self.owed.extend(topics.iter().filter(|topic| !self.owed.contains(topic)).collect::<Vec<_>>());
    }

    /// What the relay does when everything else is written.
    fn pay(&mut self) {
        assert!(!self.owed.is_empty(), "drained, and nothing is owed");
        let number = self.handed.len();
        self.handed.push(HandedOver::Resync(std::mem::take(&mut self.owed)));
        let (topics, positions) = (Vec::new(), Positions::default());
        let resync =
            NodeMessage::Resync { topics, reason: Reason::Slow, spread_ms: number as u64, at: 0, positions };
        self.outbox.message(resync);
        self.outbox.settle();
    }

    /// Judges what was received, by number.
    fn judge(&self, received: &[usize]) {
        assert!(received.is_sorted_by(|a, b| a < b), "out of order, or twice: {received:?}");
        let received: BTreeSet<usize> = received.iter().copied().collect();
        for (number, handed) in
            self.handed.iter().enumerate().filter(|(number, _)| !received.contains(number))
        {
            let HandedOver::Event(topic) = handed else { panic!("{handed:?} is missing") };
            let told = self.dropped.iter().find(|(until, topics)| *until > number && topics.contains(topic));
            let Some((until, _)) = told else { panic!("event {number} is missing, and nothing is owed") };
            let resync = self.handed.iter().enumerate().skip(*until).find_map(|(at, handed)| match handed {
                HandedOver::Resync(topics) if topics.contains(topic) => Some(at),
                _ => None,
            });
            let resync = resync.expect("owed, and never told");
            let later = received
                .range(number..resync)
                .find(|later| self.handed[**later] == HandedOver::Event(*topic));
            assert_eq!(later, None, "an event behind one that is missing, before the resync");
        }
    }
}

/// A socket with small buffers, and who reads from it.
fn sockets() -> (TcpStream, Reader) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reader = Reader::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    let small = socket2::SockRef::from(&socket);
    small.set_send_buffer_size(4096).unwrap();
    small.set_tcp_nodelay(true).unwrap();
    socket2::SockRef::from(&reader).set_recv_buffer_size(4096).unwrap();
    socket.set_nonblocking(true).unwrap();
    reader.set_nonblocking(true).unwrap();
    (TcpStream::from_std(socket).unwrap(), reader)
}

/// The session's task: what it does when it is woken.
fn turn(model: &mut Model) {
    let mut cx = Context::from_waker(Waker::noop());
    if model.outbox.is_blocked() && model.outbox.socket().unwrap().poll_write_ready(&mut cx).is_ready() {
        model.outbox.unblock();
    }
    while let Poll::Ready(notice) = model.outbox.poll_notice(&mut cx) {
        match notice {
            Notice::Drained => model.pay(),
            Notice::Work => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The numbers of what was received: events, messages and resyncs each carry one.
fn numbers(mut wire: &[u8]) -> Vec<usize> {
    let mut numbers = Vec::new();
    while let [first, second, rest @ ..] = wire {
        let (length, rest) = match *second {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            length => (usize::from(length), rest),
        };
        let (payload, rest) = rest.split_at(length);
        wire = rest;
        if *first != 0x81 {
            continue;
        }
        let json: serde_json::Value = serde_json::from_slice(payload).unwrap();
        let number = match json["type"].as_str().unwrap() {
            "event" => json["event"]["n"].as_u64(),
            "error" => json["detail"].as_str().and_then(|text| text.parse().ok()),
            _ => json["spread_ms"].as_u64(),
        };
        numbers.push(number.unwrap() as usize);
    }
    numbers
}

/// Reads what there is.
fn read(reader: &mut Reader, wire: &mut Vec<u8>, most: usize) {
    let mut chunk = vec![0; most];
    let read = reader.read(&mut chunk).unwrap_or(0);
    wire.extend_from_slice(&chunk[..read]);
}

/// Over a socket, until it is closed; what was received.
async fn direct(happenings: &[Happening], model: &mut Model, mut reader: Reader) -> Vec<usize> {
    let mut wire = Vec::new();
    for happening in happenings {
        model.happen(happening);
        match happening {
            Happening::Read(most) => read(&mut reader, &mut wire, *most),
            Happening::Turn => {
                // Here the runtime learns what the socket can take.
                tokio::task::yield_now().await;
                turn(model);
            }
            _ => {}
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let mut sealed = false;
    model.outbox.flush();
    while !sealed || !model.outbox.is_empty() {
        assert!(Instant::now() < deadline, "does not drain");
        if !sealed && model.outbox.is_empty() && model.owed.is_empty() {
            let last = model.message();
            model.outbox.farewell(Some(last), crate::hub::frame::close_frame(1012, "drain"));
            sealed = true;
            let late = model.frame(0, 1);
            assert_eq!(model.outbox.push(&late), Taken::Ended, "taken after the last words");
            model.handed.pop();
        }
        read(&mut reader, &mut wire, 65536);
        tokio::task::yield_now().await;
        turn(model);
    }
    // What the kernel still has on its way.
    let socket = socket2::SockRef::from(model.outbox.socket().unwrap().tcp());
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    reader.set_nonblocking(false).unwrap();
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    reader.read_to_end(&mut wire).unwrap();
    numbers(&wire)
}

/// By pulling, as SSE, long-poll and TLS do.
fn pulled(happenings: &[Happening], model: &mut Model) -> Vec<usize> {
    let mut received = Vec::new();
    let mut pull = |outbox: &Outbox, most: usize| {
        received.extend(outbox.pull(most).into_iter().map(|item| match item {
            Item::Event(frame) => frame.seq().unwrap() as usize,
            Item::Message(NodeMessage::Resync { spread_ms, .. }) => spread_ms as usize,
            Item::Message(NodeMessage::Error { detail, .. }) => detail.parse().unwrap(),
            Item::Message(other) => panic!("{other:?}"),
        }));
    };
    for happening in happenings {
        model.happen(happening);
        match happening {
            Happening::Read(most) => pull(&model.outbox, most % 50),
            Happening::Turn => turn(model),
            _ => {}
        }
    }
    while !model.outbox.is_empty() || !model.owed.is_empty() {
        pull(&model.outbox, 1000);
        turn(model);
    }
    received
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_socket_gets_everything_in_order_but_events_it_is_told_of(
        happenings in prop::collection::vec(happening(), 1..300),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        let (socket, reader) = sockets();
        let mut model = Model::new(Outbox::direct(socket, LIMIT));
        let received = runtime.block_on(direct(&happenings, &mut model, reader));
        model.judge(&received);
    }

    #[test]
    fn who_pulls_gets_everything_in_order_but_events_he_is_told_of(
        happenings in prop::collection::vec(happening(), 1..300),
    ) {
        let mut model = Model::new(Outbox::pulled(LIMIT));
        let received = pulled(&happenings, &mut model);
        model.judge(&received);
    }
}
