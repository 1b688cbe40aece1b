//! What the steps of an event's way through a node cost, one by one: check, encode, feed, fan-out; and what a session's
//! messages cost to read. `cargo bench`; whole nodes are measured by `carillon bench`.

use std::{
    hint::black_box,
    io::Read,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon::{
    bus::Head,
    hub::{Entrance, Frame, Hub, Outbox, RoomId},
    protocol::{Areas, ClientMessage, EntryId, Event, Lineage, Position, Subject, Topic},
    relay::feed::{Arrival, Feed},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Bytes of an event in all benches.
const SIZE: usize = 200;

fn areas() -> Areas {
    Areas::new(["comments"], [], []).expect("a good area")
}

fn topic() -> Topic {
    Topic::parse("comments:42", &areas()).expect("a good topic")
}

fn json() -> Bytes {
    let start = r#"{"id":"01JD","type":"comment.created","source":"cms-02","actor":"anna","data":{"project":42,"pad":""#;
    Bytes::from(format!(r#"{start}{}"}}}}"#, "x".repeat(SIZE - start.len() - 3)))
}

fn event() -> Event {
    Event::parse(json(), 65_536).expect("a good event")
}

fn id(seq: u64) -> EntryId {
    EntryId { epoch: 1_763_764_200_000, seq }
}

fn lineage() -> Lineage {
    Lineage::new("0123456789abcdef")
}

fn frame(seq: u64) -> Frame {
    Frame::new(topic(), Some((lineage(), id(seq))), 1_763_764_200_000, &event())
}

fn protocol(c: &mut Criterion) {
    let mut group = c.benchmark_group("protocol");
    let json = json();
    group.throughput(Throughput::Bytes(json.len() as u64));
    group.bench_function("check an event", |b| b.iter(|| Event::parse(black_box(json.clone()), 65_536)));
    let areas = areas();
    group.bench_function("read a topic", |b| b.iter(|| Topic::parse(black_box("comments:42"), &areas)));
    let connect = r#"{"type":"connect","topics":["comments:42","project-items:7","notifications:anna"],"client":"tab-7f3e","resume":{"at":1732000000000,"positions":{"comments:42":"0123456789abcdef.1732000000000-17","comments":"0123456789abcdef.1732000000000-3"}}}"#;
    group.bench_function("read a connect", |b| b.iter(|| ClientMessage::parse(black_box(connect))));
    group.bench_function("read a ping", |b| b.iter(|| ClientMessage::parse(black_box(r#"{"type":"ping"}"#))));
    let position = "0123456789abcdef.1732000000000-17";
    group.bench_function("read a position", |b| b.iter(|| black_box(position).parse::<Position>()));
    group.finish();
}

fn encode(c: &mut Criterion) {
    let (topic, lineage, event) = (topic(), lineage(), event());
    c.bench_function("encode an event", |b| {
        b.iter(|| {
            Frame::new(topic.clone(), Some((lineage.clone(), id(7))), 1_763_764_200_000, black_box(&event))
        });
    });
}

fn feed(c: &mut Criterion) {
    let (topic, event, now) = (topic(), event(), Instant::now());
    let opened = || {
        let mut feed = Feed::opening(1000);
        feed.start(Head { lineage: lineage(), top: id(0) });
        assert!(feed.is_live());
        feed
    };
    c.bench_function("feed: judge and take an event", |b| {
        let (mut feed, mut seq) = (opened(), 0);
        b.iter(|| {
            seq += 1;
            let arrival = feed.arrive(&topic, id(seq), Some(event.clone()), 7, now);
            assert!(matches!(black_box(arrival), Arrival::Deliver(_)));
        });
    });
    c.bench_function("feed: a session comes back, 30 events behind", |b| {
        let mut feed = opened();
        for seq in 1..=32 {
            feed.arrive(&topic, id(seq), Some(event.clone()), 7, now);
        }
        let position = Position { lineage: lineage(), id: id(2) };
        b.iter(|| black_box(feed.resume(&position)));
    });
}

fn hub_of(outboxes: &[Arc<Outbox>]) -> (Hub, RoomId) {
    let mut hub = Hub::default();
    let room = hub.room(&Subject::Topic(topic()));
    for outbox in outboxes {
        let member = hub.admit(outbox);
        hub.enter(member, room, Entrance { explicit: true, fresh: true, ticket: 0 });
        hub.put_in_step(member, room, 0, 0);
    }
    (hub, room)
}

fn hub(c: &mut Criterion) {
    const SESSIONS: usize = 1000;
    let mut group = c.benchmark_group("hub, 1000 sessions");
    group.throughput(Throughput::Elements(SESSIONS as u64)).measurement_time(Duration::from_secs(5));
    let pulled: Vec<_> = (0..SESSIONS).map(|_| Outbox::pulled(usize::MAX)).collect();
    let (mut hub, room) = hub_of(&pulled);
    group.bench_function("queue an event for all, and take it out", |b| {
        let mut seq = 0;
        let next = || {
            seq += 1;
            frame(seq)
        };
        b.iter_batched(
            next,
            |frame| {
                hub.deliver(room, &frame, false);
                for outbox in &pulled {
                    drop(black_box(outbox.pull(1)));
                }
            },
            BatchSize::SmallInput,
        );
    });
    for together in [1, 4, 16, 64] {
        sockets(&mut group, SESSIONS, together);
    }
    group.finish();
}

/// Writing to sockets: `together` events at a time, to sessions whose peers are read by another thread.
fn sockets(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    sessions: usize,
    together: u64,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut peers = Vec::new();
    let mut outboxes = Vec::new();
    for _ in 0..sessions {
        peers.push(std::net::TcpStream::connect(address).expect("a connection"));
        let (socket, _) = listener.accept().expect("a connection");
        socket.set_nonblocking(true).expect("a socket");
        let socket = tokio::net::TcpStream::from_std(socket).expect("a runtime");
        outboxes.push(Outbox::direct(socket, usize::MAX));
    }
    let (mut hub, room) = hub_of(&outboxes);
    let reader = std::thread::spawn(move || {
        let mut chunk = vec![0; 64 * 1024];
        // In turn; the end of the first is the end of all.
        loop {
            for peer in &mut peers {
                if peer.read(&mut chunk).map_or(0, |read| read) == 0 {
                    return;
                }
            }
        }
    });
    // The sockets are new to the runtime: their readiness must be known before `try_write` does anything.
    runtime.block_on(async {
        for outbox in &outboxes {
            outbox.socket().expect("direct").writable().await.expect("writable");
        }
    });
    let mut seq = 0;
    group.throughput(Throughput::Elements(sessions as u64 * together));
    group.bench_function(format!("write {together} to all sockets"), |b| {
        b.iter(|| {
            for _ in 0..together {
                seq += 1;
                hub.deliver(room, &frame(seq), together == 1);
            }
            hub.flush();
            runtime.block_on(async {
                for outbox in outboxes.iter().filter(|outbox| outbox.is_blocked()) {
                    outbox.socket().expect("direct").writable().await.expect("writable");
                    outbox.unblock();
                }
            });
        });
    });
    drop((hub, outboxes));
    reader.join().expect("the reader ends");
}

criterion_group!(paths, protocol, encode, feed, hub);
criterion_main!(paths);
