//! Faults of clients and of the network before the nodes: slow, hostile, many at once, gone without a word.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures_util::SinkExt;
use rand::{RngExt, seq::SliceRandom};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::upgrade,
    door::Door,
    process::{hold, until},
    proxy::Proxy,
    record::{Ack, Fact},
    watch::PROMISE,
    world::World,
};

/// Sessions that follow busy topics and never read: they cost memory for a bounded time and nobody else anything.
pub(crate) async fn never_reads(world: &mut World) -> Result<()> {
    world.begin("sessions that never read");
    let before = given_up(world).await;
    let mut deaf = Vec::new();
    for n in 0..10 {
        let port = world.nodes[n % world.nodes.len()].port;
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let stream = socket.connect(([127, 0, 0, 1], port).into()).await?;
        let mut socket = upgrade(stream, port).await?;
        let topics: Vec<&String> = world.topics.names.iter().take(30).collect();
        let connect = serde_json::json!({ "type": "connect", "topics": topics });
        socket.send(Message::text(connect.to_string())).await?;
        deaf.push(socket);
    }
    let topic = world.topics.id("comments:1").context("no such topic")?;
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    while given_up(world).await < before + 10.0 {
        ensure!(
            tokio::time::Instant::now() < end,
            "the nodes do not give up sessions that never read\n{}",
            world.logs()
        );
        world.press.burst(topic, 8, 4000).await?;
        hold(Duration::from_millis(200)).await;
    }
    let lost = world.losses();
    ensure!(lost == 0, "{lost} sessions lost their connection because of others");
    world.recovered().await?;
    world.bit("sessions given up because they never read", 10);
    Ok(())
}

/// Sessions that nodes have given up. Where heartbeats are shorter than the patience with slow sessions, a client that
/// stands still is taken for dead before it is too slow.
async fn given_up(world: &World) -> f64 {
    let closed = |code| world.figure("carillon_sessions_closed_total", code);
    let patient = world.setup.env.iter().any(|(name, _)| *name == "HEARTBEAT__SECONDS");
    closed("4409").await + if patient { 0.0 } else { closed("4408").await }
}

/// Clients that send noise as fast as they can, before and after the handshake.
pub(crate) async fn garbage(world: &mut World) -> Result<()> {
    world.begin("clients that send garbage");
    let mut shouting = tokio::task::JoinSet::new();
    for kind in 0..40 {
        let port = world.nodes[kind % world.nodes.len()].port;
        shouting.spawn(async move {
            let shouted = tokio::time::timeout(Duration::from_secs(20), shout(port, kind)).await;
            // Who could say nothing has not been cut off.
            shouted.is_ok_and(|pieces| pieces > 0).then_some(kind)
        });
    }
    let ended = shouting.join_all().await;
    let closed = ended.iter().flatten().count() as u64;
    ensure!(closed == 40, "only {closed} of 40 shouting clients were cut off: {ended:?}");
    let lost = world.losses();
    ensure!(lost == 0, "{lost} sessions lost their connection because of others");
    world.recovered().await?;
    world.bit("shouting clients cut off", closed);
    Ok(())
}

/// Sends garbage until the node closes the connection; how many pieces were sent.
async fn shout(port: u16, kind: usize) -> u64 {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return 0 };
    let mut sent = 0;
    let mut noise = vec![0u8; 16_384];
    rand::rng().fill(&mut noise[..]);
    match kind % 4 {
        0 => {}
        1 => noise = b"GET /realtime HTTP/1.1\r\nhost: x\r\nx: y\r\n".repeat(400),
        2 => {
            let Ok(mut socket) = upgrade(stream, port).await else { return 0 };
            let flood = Message::text("{\"type\":\"subscribe\",\"topics\":[\"comments:1\"]}");
            while socket.send(flood.clone()).await.is_ok() {
                sent += 1;
            }
            return sent;
        }
        _ => {
            let Ok(socket) = upgrade(stream, port).await else { return 0 };
            stream = socket.into_inner();
        }
    }
    let (mut from, mut to) = stream.into_split();
    let mut sink = vec![0u8; 4096];
    tokio::select! {
        () = async { while to.write_all(&noise).await.is_ok() { sent += 1; } } => {}
        () = async { while from.read(&mut sink).await.is_ok_and(|size| size > 0) {} } => {}
    }
    sent
}

/// Every session loses its connection at once and comes back.
pub(crate) async fn storm(world: &mut World) -> Result<()> {
    world.begin(format!("{} sessions lose their connections at once", world.sessions.len()));
    let there = world.sessions.iter().filter(|session| session.state().connected).count() as u64;
    for session in &world.sessions {
        session.drop_connection();
    }
    until("the sessions notice", PROMISE, || async { world.drops() >= there }).await?;
    world.recovered_within(Duration::from_secs(30), None).await?;
    world.bit("connections lost at once", there);
    Ok(())
}

/// Clients vanish without a word: the nodes find out by themselves, and the clients come back.
pub(crate) async fn vanishes(world: &mut World) -> Result<()> {
    let before = world.figure("carillon_sessions_closed_total", "4408").await;
    let there = world.sessions.iter().filter(|session| session.state().connected).count() as f64;
    world.begin("nothing gets through between sessions and nodes any more");
    for front in &world.fronts {
        front.rule(|rules| (rules.hold_up, rules.hold_down) = (true, true));
    }
    // Who left by himself meanwhile is not found by anybody.
    let found = until("the nodes find out (4408)", Duration::from_secs(25), || async {
        let found = world.figure("carillon_sessions_closed_total", "4408").await - before;
        found + world.drops() as f64 >= there
    })
    .await;
    for front in &world.fronts {
        front.heal();
        front.cut();
    }
    found.with_context(|| world.logs())?;
    world.recovered_within(Duration::from_secs(15), None).await?;
    let found = world.figure("carillon_sessions_closed_total", "4408").await - before;
    ensure!(found > 0.0, "nobody was found gone: the fault did not bite");
    world.bit("sessions closed 4408", found as u64);
    Ok(())
}

/// A proxy that cuts what is idle for 60 s: heartbeats keep quiet sessions alive.
pub(crate) async fn idle_cut(world: &mut World) -> Result<()> {
    world.begin("a proxy that cuts idle connections, and silence");
    world.press.rest().await?;
    for front in &world.fronts {
        front.rule(|rules| rules.idle = Some(Duration::from_secs(60)));
    }
    hold(Duration::from_secs(66)).await;
    let lost = world.losses();
    ensure!(lost == 0, "{lost} quiet sessions were cut although heartbeats shall keep them alive");
    world.note("now a proxy that cuts faster than any heartbeat");
    for front in &world.fronts {
        front.rule(|rules| rules.idle = Some(Duration::from_secs(1)));
    }
    until("sessions are cut", PROMISE, || async { world.losses() > 0 }).await?;
    world.fronts.iter().for_each(Proxy::heal);
    world.press.go_on();
    world.recovered().await?;
    let lost = world.losses();
    world.bit("connections cut", lost);
    Ok(())
}

/// The network before the nodes cuts all connections, again and again.
pub(crate) async fn cut(world: &mut World) -> Result<()> {
    world.begin("the connections of all sessions are cut, three times");
    let mut cut = 0;
    for _ in 0..3 {
        cut += world.fronts.iter().map(Proxy::cut).sum::<usize>();
        hold(Duration::from_millis(700)).await;
    }
    ensure!(cut >= world.sessions.len(), "only {cut} connections were cut");
    world.recovered().await?;
    world.bit("connections cut", cut as u64);
    Ok(())
}

/// Several publishers send the same events, each several times and in another order: each is recorded once.
pub(crate) async fn publish_twice(world: &mut World) -> Result<()> {
    world.begin("the same events from three publishers, in any order");
    let press = Arc::clone(&world.press);
    let topic = world.topics.id("comments:1").context("no such topic")?;
    let numbers: Vec<u64> = (0..150).map(|_| press.number(topic)).collect();
    let mut publishing = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (press, mut numbers) = (Arc::clone(&press), [&numbers[..], &numbers[..]].concat());
        numbers.shuffle(&mut rand::rng());
        publishing.spawn(async move {
            let mut door = Door::new(press.place.clone());
            let mut ids = Vec::new();
            for number in numbers {
                let sent = press.clock.now();
                ids.push((number, press.try_once(&mut door, topic, number, 0).await.ok(), sent));
            }
            ids
        });
    }
    let (mut ids, mut answers) = (HashSet::new(), 0);
    while let Some(answered) = publishing.join_next().await {
        for (number, id, sent) in answered? {
            let id = id.context("a publish was refused")?;
            answers += 1;
            if ids.insert((number, id)) {
                press.ledger().acks.push(Ack { topic, number, id, sent });
            }
        }
    }
    ensure!(ids.len() == numbers.len(), "{} events were recorded as {} entries", numbers.len(), ids.len());
    world.recovered().await?;
    let twice = world.sessions.iter().filter(|session| {
        let state = session.state();
        let mut seen = HashSet::new();
        state.told.facts.iter().any(|(_, fact)| {
            matches!(fact, Fact::Event { topic: t, number, position: Some(_) } if *t == topic && !seen.insert(*number))
        })
    });
    ensure!(twice.count() == 0, "sessions got the same event twice");
    world.bit("publishes that were repetitions", answers - ids.len() as u64);
    Ok(())
}
