//! Faults of nodes: killed, drained, restarted one after another, and out of file descriptors.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;

use crate::{
    node,
    process::{hold, until},
    record::Fact,
    watch::PROMISE,
    world::World,
};

/// A node is killed under load; its sessions come back on the others.
pub(crate) async fn killed(world: &mut World) -> Result<()> {
    kill(world, PROMISE).await
}

/// The same with many sessions: all back within 30 s, and the logs are not read once for each of them.
pub(crate) async fn killed_many(world: &mut World) -> Result<()> {
    kill(world, Duration::from_secs(30)).await
}

async fn kill(world: &mut World, bound: Duration) -> Result<()> {
    let victim = world.nodes.len() - 1;
    let sessions = on_node(world, victim);
    ensure!(sessions > 0, "nobody was on the node: the fault did not bite");
    let reads = node::figures(&world.nodes, "carillon_history_reads_total", "").await;
    let replays = world.figure("carillon_backfilled_total", "").await;
    world.begin(format!("node {victim} is killed, with {sessions} sessions"));
    world.nodes[victim].kill().await?;
    world.recovered_within(bound, None).await?;
    let after = node::figures(&world.nodes[..victim], "carillon_history_reads_total", "").await;
    let topics = world.topics.names.len() as f64;
    for (name, count) in after {
        let read = count - reads.get(&name).copied().unwrap_or(0.0);
        ensure!(read <= topics, "{name} has read logs {read} times for {topics} topics");
    }
    let replayed = world.figure("carillon_backfilled_total", "").await - replays;
    world.note(format!("the other nodes replayed {replayed} events"));
    world.nodes[victim].run().await?;
    world.in_step_within(PROMISE).await?;
    world.bit("sessions that lost their node", sessions as u64);
    Ok(())
}

fn on_node(world: &World, node: usize) -> usize {
    let name = &world.nodes[node].name;
    let there = world.sessions.iter().filter(|session| {
        let state = session.state();
        state.connected && state.node == *name
    });
    there.count()
}

/// A node is told to end under load: it sends its sessions away politely, and ends in time.
pub(crate) async fn sigterm(world: &mut World) -> Result<()> {
    world.begin("SIGTERM");
    let victim = world.nodes.len() - 1;
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
    let mut moved = 0;
    for victim in 0..world.nodes.len() {
        let began = world.clock.now();
        let sessions = drain(world, victim).await?;
        world.nodes[victim].run().await?;
        // Planned: all of the node's sessions over the window of 4 s.
        let share = sessions as f64 / 4.0;
        let busiest = busiest_second(world, began);
        world.note(format!("busiest second: {busiest} returns, planned {share:.1}"));
        // Chance alone makes small numbers uneven.
        let most = (2.0 * share).max(share + 8.0);
        ensure!(
            (busiest as f64) <= most,
            "{busiest} sessions came back in one second, planned were {share:.1}"
        );
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
    let mut crowd = Vec::new();
    for node in &world.nodes {
        for _ in 0..200 {
            if let Ok(Ok(stream)) =
                tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(("127.0.0.1", node.port)))
                    .await
            {
                crowd.push((node.port, stream));
            }
        }
    }
    // A newcomer is refused or has to wait; nobody else notices.
    let mut refused = 0;
    for node in &world.nodes {
        let stream = TcpStream::connect(("127.0.0.1", node.port)).await;
        let answered = async { crate::client::upgrade(stream?, node.port).await };
        if !matches!(tokio::time::timeout(Duration::from_millis(500), answered).await, Ok(Ok(_))) {
            refused += 1;
        }
    }
    hold(Duration::from_secs(2)).await;
    let lost = world.losses();
    drop(crowd);
    ensure!(refused > 0, "newcomers were welcome all the time: the fault did not bite");
    ensure!(lost == 0, "{lost} sessions lost their connection because of others");
    let node = &world.nodes[0];
    until("a newcomer is welcome again", Duration::from_secs(15), || async {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", node.port)).await else { return false };
        let answered = crate::client::upgrade(stream, node.port);
        matches!(tokio::time::timeout(Duration::from_secs(1), answered).await, Ok(Ok(_)))
    })
    .await
    .with_context(|| node.tail())?;
    world.recovered().await?;
    world.bit("newcomers refused", refused);
    Ok(())
}
