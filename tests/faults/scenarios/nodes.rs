//! Faults of nodes: killed, drained, restarted one after another, and out of file descriptors.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{Session, upgrade},
    node::{self, Node},
    process::{hold, until},
    reads::Reads,
    record::Fact,
    watch::PROMISE,
    world::World,
};

/// A node is killed under load; its sessions come back on the others.
pub(crate) async fn killed(world: &mut World) -> Result<()> {
    kill(world, PROMISE).await
}

/// The same with many sessions, and more missed than a node has at hand: all are back within 30 s, and no node reads a
/// log twice.
pub(crate) async fn killed_many(world: &mut World) -> Result<()> {
    let reads = Reads::watch(world.store.server(0).port).await?;
    let losses = world.figure("carillon_link_losses_total", "").await;
    kill(world, Duration::from_secs(30)).await?;
    let counts = reads.counts()?;
    ensure!(!counts.is_empty(), "no log was read: the fault did not bite");
    ensure!(counts.values().all(|count| *count == 1), "a node has read a log more than once: {counts:?}");
    let losses = world.figure("carillon_link_losses_total", "").await - losses;
    ensure!(losses <= 0.0, "links to Redis were lost, so that addresses do not stand for nodes");
    Ok(())
}

async fn kill(world: &mut World, bound: Duration) -> Result<()> {
    let victim = busiest_node(world);
    let sessions = sessions_of(world, victim);
    ensure!(!sessions.is_empty(), "nobody was on the node: the fault did not bite");
    let reads = node::figures(&world.nodes, "carillon_history_reads_total", "").await;
    let replays = node::figures(&world.nodes, "carillon_backfilled_total", "").await;
    world.begin(format!("node {victim} is killed, with {} sessions", sessions.len()));
    // Nobody is back before there is something to miss, however long it takes to publish it.
    let stay_away = |away| sessions.iter().for_each(|session| session.away.store(away, Ordering::Relaxed));
    stay_away(true);
    world.nodes[victim].kill().await?;
    for name in ["comments:1", "comments:2", "comments:3"] {
        let topic = world.topics.id(name).context("no such topic")?;
        world.press.burst(topic, 50, 0).await?;
    }
    stay_away(false);
    world.recovered_within(bound, None).await?;
    let topics = world.topics.names.len() as f64;
    let (mut most, mut replayed) = (0.0_f64, 0.0);
    for node in world.nodes.iter().enumerate().filter_map(|(n, node)| (n != victim).then_some(node)) {
        let since =
            |before: &HashMap<String, f64>, now: f64| now - before.get(&node.name).copied().unwrap_or(0.0);
        let read = since(&reads, node.figure("carillon_history_reads_total", "").await);
        ensure!(read <= topics, "{} has read logs {read} times for {topics} topics", node.name);
        most = most.max(read);
        replayed += since(&replays, node.figure("carillon_backfilled_total", "").await);
    }
    ensure!(replayed > 0.0, "nothing was replayed: the fault did not bite");
    world.measured("reads of logs by a node", most);
    world.bit("events replayed", replayed as u64);
    world.nodes[victim].run().await?;
    world.in_step_within(PROMISE).await?;
    world.bit("sessions that lost their node", sessions.len() as u64);
    Ok(())
}

/// The node with the most sessions: one that has just come back has none.
fn busiest_node(world: &World) -> usize {
    (0..world.nodes.len()).max_by_key(|node| on_node(world, *node)).unwrap_or_default()
}

fn on_node(world: &World, node: usize) -> usize {
    sessions_of(world, node).len()
}

fn sessions_of(world: &World, node: usize) -> Vec<Arc<Session>> {
    let name = &world.nodes[node].name;
    let is_there = |session: &&Arc<Session>| {
        let state = session.state();
        state.connected && state.node == *name
    };
    world.sessions.iter().filter(is_there).cloned().collect()
}

/// A node stands still for longer than two heartbeats. Clients that said something meanwhile were not silent: their words lie
/// unread, and nobody may be closed for that.
pub(crate) async fn stands_still(world: &mut World) -> Result<()> {
    let victim = busiest_node(world);
    let port = world.nodes[victim].port;
    let mut talkers = Vec::new();
    for _ in 0..40 {
        let mut talker = upgrade(TcpStream::connect(("127.0.0.1", port)).await?, port).await?;
        talker.send(Message::text(r#"{"type":"connect","topics":["comments:1"]}"#)).await?;
        talkers.push(talker);
    }
    let before = silenced(&world.nodes[victim]).await;
    world.begin(format!("node {victim} stands still (SIGSTOP), and its clients go on talking"));
    world.nodes[victim].process()?.signal("STOP").await?;
    for _ in 0..14 {
        hold(Duration::from_secs(1)).await;
        for talker in &mut talkers {
            talker.send(Message::text(r#"{"type":"ping"}"#)).await?;
        }
    }
    world.nodes[victim].process()?.signal("CONT").await?;
    let mut answered = 0;
    for talker in &mut talkers {
        let heard = async {
            while let Some(Ok(message)) = talker.next().await {
                if message.to_text().is_ok_and(|text| text.contains(r#""type":"pong""#)) {
                    return true;
                }
            }
            false
        };
        answered += usize::from(tokio::time::timeout(PROMISE, heard).await.unwrap_or(false));
    }
    let closed = silenced(&world.nodes[victim]).await - before;
    ensure!(
        answered == 40,
        "only {answered} of 40 clients were heard; {closed} sessions were closed as silent (4408)"
    );
    world.recovered().await?;
    world.bit("pauses of a node", 1);
    Ok(())
}

/// How many sessions a node has closed because it heard nothing of them.
async fn silenced(node: &Node) -> f64 {
    node.figure("carillon_sessions_closed_total", "4408").await
}

/// A node is told to end under load: it sends its sessions away politely, and ends in time.
pub(crate) async fn sigterm(world: &mut World) -> Result<()> {
    world.begin("SIGTERM");
    let victim = busiest_node(world);
    let moved = drain(world, victim).await?;
    world.recovered().await?;
    world.nodes[victim].run().await?;
    world.bit("sessions that were sent away", moved as u64);
    Ok(())
}

/// Drains a node; nobody may be without one for longer than the way to another takes.
async fn drain(world: &mut World, victim: usize) -> Result<usize> {
    let sessions = on_node(world, victim);
    world.note(format!("node {victim} is told to end, with {sessions} sessions"));
    let process = world.nodes[victim].process()?;
    process.signal("TERM").await?;
    // Window 4 s and grace 5 s, and a little for the machine.
    let status = process.ended(Duration::from_secs(11)).await?;
    ensure!(status.success(), "the node ended with {status}\n{}", world.nodes[victim].tail());
    world.nodes[victim].forget();
    Ok(sessions)
}

/// Every node is restarted, one after another; the sessions' returns are spread.
pub(crate) async fn rolling(world: &mut World) -> Result<()> {
    world.begin("rolling restart");
    let (mut moved, mut before) = (0, 0.0_f64);
    for victim in 0..world.nodes.len() {
        let began = world.clock.now();
        let sessions = drain(world, victim).await?;
        world.nodes[victim].run().await?;
        // Planned: all of the node's sessions over the window of 4 s. Those of the node before are still coming back.
        let share = sessions as f64 / 4.0;
        let planned = share.max(std::mem::replace(&mut before, share));
        let busiest = busiest_second(world, began);
        world.note(format!("busiest second: {busiest} returns, planned {planned:.1}"));
        // Chance alone makes small numbers uneven.
        let most = if planned < 20.0 { planned + 20.0 } else { 2.0 * planned };
        ensure!(
            (busiest as f64) <= most,
            "{busiest} sessions came back in one second, planned were {planned:.1}"
        );
        if planned >= 20.0 {
            world.measured("busiest second, of the planned share", busiest as f64 / planned);
        }
        moved += sessions;
    }
    world.recovered().await?;
    world.bit("sessions that were sent away", moved as u64);
    Ok(())
}

fn busiest_second(world: &World, since: u64) -> usize {
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    for session in &world.sessions {
        let state = session.state();
        for (at, fact) in state.told.facts.iter().rev().take_while(|(at, _)| *at >= since) {
            if matches!(fact, Fact::Welcome { .. }) {
                *seconds.entry((at - since) / 1000).or_default() += 1;
            }
        }
    }
    seconds.into_values().max().unwrap_or(0)
}

/// So many connections that a node has no file descriptors left: it goes on for those it has, and recovers.
pub(crate) async fn out_of_files(world: &mut World) -> Result<()> {
    world.begin("file descriptors run out");
    let mut limits = Vec::new();
    for node in &mut world.nodes {
        let process = node.process()?;
        let (open, limit) = process.files().await?;
        process.limit_files(open as u64 + 20).await?;
        limits.push(limit);
    }
    let outcome = crowd_out(world).await;
    for (node, limit) in world.nodes.iter_mut().zip(limits) {
        node.process()?.limit_files(limit).await?;
    }
    let refused = outcome?;
    world.recovered().await?;
    world.bit("newcomers refused", refused);
    Ok(())
}

/// Takes what files are left, and lets go of them. Returns how many newcomers were refused.
async fn crowd_out(world: &World) -> Result<u64> {
    let mut crowd = Vec::new();
    for node in &world.nodes {
        for _ in 0..60 {
            let stream = TcpStream::connect(("127.0.0.1", node.port));
            crowd.extend(tokio::time::timeout(Duration::from_millis(200), stream).await.ok());
        }
    }
    // A newcomer is refused or has to wait; nobody else notices.
    let mut refused = 0;
    for node in &world.nodes {
        refused += u64::from(!is_welcome(node.port, Duration::from_millis(500)).await);
    }
    hold(Duration::from_secs(2)).await;
    let lost = world.losses();
    drop(crowd);
    ensure!(refused > 0, "newcomers were welcome all the time: the fault did not bite");
    ensure!(lost == 0, "{lost} sessions lost their connection because of others");
    for node in &world.nodes {
        until("a newcomer is welcome again", Duration::from_secs(15), || {
            is_welcome(node.port, Duration::from_secs(1))
        })
        .await
        .with_context(|| node.tail())?;
    }
    Ok(refused)
}

/// Whether somebody who comes now gets a WebSocket in time.
async fn is_welcome(port: u16, patience: Duration) -> bool {
    let upgraded =
        async { crate::client::upgrade(TcpStream::connect(("127.0.0.1", port)).await?, port).await };
    matches!(tokio::time::timeout(patience, upgraded).await, Ok(Ok(_)))
}
