//! The course of a bench: start what is needed, connect, measure, leave, report.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use carillon::{
    app::wiring,
    bus::Bus,
    config::Layers,
    metrics::{Metrics, process::Footprint},
    shutdown::Tasks,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::Notify;

use super::{
    By, Options, Outcome, Usage,
    fleet::{ChildProcess, Readers},
    meter::{self, Meter},
    nodes::Node,
    order::{Answer, Order, Side},
    page,
    plan::{NodeAddress, Plan},
    publisher::Publisher,
    report::{self, Connects, Idle, Machine, Report},
    round::{Pace, RoundKind, Stage},
};

/// Sockets that a reader holds at most, below the usual `ulimit -n`.
const SOCKETS: u32 = 18_500;
/// How long a round at a rate lasts.
const SPAN: Duration = Duration::from_secs(10);
/// After everybody has left, memory has settled when it has not fallen for so long: it is given back bit by bit.
const STILL: Duration = Duration::from_secs(12);
/// How long it is given for that at most.
const SETTLE: Duration = Duration::from_secs(60);

/// Runs the bench and writes its page.
pub(super) async fn run(bench: Options, layers: Layers) -> Result<Outcome> {
    let tasks = Tasks::new();
    let http = meter::http();
    let spawned = spawn(&bench, &http).await?;
    let mut stage = stage(&bench, layers, &spawned, http, &tasks).await?;
    let report = measure(&bench, &mut stage).await?;
    if let Some(file) = &bench.report {
        std::fs::write(file, page::page(&report))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let text = if bench.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text() };
    tasks.end(Duration::from_secs(1)).await;
    Ok(Outcome { report: text, flawless: report.flawless })
}

async fn spawn(bench: &Options, http: &meter::Http) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    let count = bench.spawn.unwrap_or(0);
    if count > 1 && bench.redis.is_empty() {
        bail!(Usage("several nodes know each other through Redis only: add --redis URL".into()));
    }
    for _ in 0..count {
        nodes.push(Node::start(&bench.redis, http, &bench.settings).await?);
    }
    Ok(nodes)
}

async fn stage(
    bench: &Options,
    layers: Layers,
    spawned: &[Node],
    http: meter::Http,
    tasks: &Tasks,
) -> Result<Stage> {
    let urls: Vec<&str> =
        bench.nodes.iter().map(String::as_str).chain(spawned.iter().map(|node| node.url.as_str())).collect();
    if urls.is_empty() {
        bail!(Usage("say what to measure: --node ws://host:port/realtime, or --spawn 1".into()));
    }
    let nodes = urls.into_iter().map(node_address).collect::<Result<_>>()?;
    let plan = Plan {
        nodes,
        token: bench.token.clone(),
        area: bench.area.clone(),
        topics: bench.topics,
        per_session: bench.per_session,
        at_once: bench.at_once as usize,
        slow: bench.slow,
    };
    let internal: Vec<&str> = bench
        .internal
        .iter()
        .map(String::as_str)
        .chain(spawned.iter().map(|node| node.internal.as_str()))
        .collect();
    let mut meters: Vec<Meter> =
        bench.pids.iter().copied().chain(spawned.iter().filter_map(Node::pid)).map(Meter::Process).collect();
    if meters.is_empty() {
        meters = internal
            .iter()
            .map(|url| Meter::Metrics(format!("{}/metrics", url.trim_end_matches('/'))))
            .collect();
    }
    let publisher = publisher(bench, layers, &internal, &http, tasks).await?;
    let per_session = if bench.floor { 2 } else { 1 };
    let readers = bench.readers.unwrap_or((bench.sessions * per_session).div_ceil(SOCKETS).max(1));
    let floor =
        if bench.floor { Some(ChildProcess::start(tasks, "floor", Arc::new(Notify::new()))?) } else { None };
    Ok(Stage {
        plan,
        readers: Readers::start(tasks, readers)?,
        publisher,
        floor,
        meters,
        http,
        followers: Vec::new(),
        start: (0, 0),
        sockets: u64::from(bench.sessions),
        payload: bench.payload,
        window: bench.window,
        published: (0, 0),
    })
}

/// What the bare receive and send follows, and where.
fn follow(bench: &Options, plan: &Plan, publisher: &Publisher) -> Result<Order> {
    let Publisher::Bus { prefix, live: false, .. } = publisher else {
        bail!(Usage(
            "--forward compares what is recorded in Redis: add --redis URL, and no other --by".into()
        ));
    };
    if plan.stride() != u64::from(plan.topics) {
        bail!(Usage("--forward has no sessions that follow several topics: leave --per-session away".into()));
    }
    let plain = bench.redis.strip_prefix("redis://").map(|rest| rest.trim_end_matches('/'));
    let redis = plain.and_then(|place| place.to_socket_addrs().ok()?.next());
    let redis = redis.with_context(|| {
        Usage("--forward knows nothing but redis://host:port: no password, no TLS, no cluster".into())
    })?;
    let channels = (0..plan.topics).map(|n| format!("{prefix}:{}", plan.forwarded(n))).collect();
    Ok(Order::Follow { redis, channels })
}

/// Takes a URL of a node apart.
fn node_address(url: &str) -> Result<NodeAddress> {
    let rest = url.strip_prefix("ws://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else {
        bail!(Usage(format!("{url} does not begin with ws:// (the bench speaks no TLS: measure behind it)")));
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, "realtime"));
    let named = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address: Option<SocketAddr> =
        named.to_socket_addrs().with_context(|| format!("cannot find {host}"))?.next();
    let address = address.with_context(|| format!("{host} has no address"))?;
    Ok(NodeAddress { address, host: host.to_owned(), path: format!("/{path}") })
}

async fn publisher(
    bench: &Options,
    layers: Layers,
    internal: &[&str],
    http: &meter::Http,
    tasks: &Tasks,
) -> Result<Publisher> {
    let by = bench.by.unwrap_or(if bench.redis.is_empty() { By::Http } else { By::Recorded });
    if matches!(by, By::Http | By::HttpLive) {
        let Some(first) = internal.first() else {
            bail!(Usage("say where to publish: --redis URL, or --internal http://host:9090".into()));
        };
        let live = if by == By::HttpLive { "?live=1" } else { "" };
        let read = |file| std::fs::read_to_string(file).map(|token| token.trim().to_owned());
        let token = bench.publish_token_file.as_ref().map(read).transpose().context("the publish token")?;
        let url = format!("{}/publish{live}", first.trim_end_matches('/'));
        return Ok(Publisher::Http { http: Box::new(http.clone()), url, token });
    }
    if bench.redis.is_empty() {
        bail!(Usage("publishing recorded or live events needs --redis URL".into()));
    }
    // As the nodes have it, because the function library in Redis must suit both.
    let config = layers.set("redis.url", &bench.redis, "--redis").set("auth.mode", "none", "bench").load()?;
    let areas = wiring::areas(&config)?;
    let (bus, mut events) = Bus::start(wiring::bus(&config, &areas), Metrics::new(), tasks).await?;
    // Nothing is subscribed to, but the probes of the bus come back all the same.
    tasks.spawn_until_end(async move { while events.recv().await.is_some() {} });
    Ok(Publisher::Bus { bus: Box::new(bus), areas, prefix: config.redis.prefix, live: by == By::Live })
}

async fn measure(bench: &Options, stage: &mut Stage) -> Result<Report> {
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine::this(),
        load: load(bench),
        sessions: u64::from(bench.sessions),
        connects: Vec::new(),
        idle: None,
        rounds: Vec::new(),
        flawless: true,
        ratio: None,
        ratio_to_forward: None,
        memory_after: Vec::new(),
    };
    if let Some(floor) = &mut stage.floor {
        let Answer::Listening(address) = floor.answer().await? else { bail!("the floor does not listen") };
        stage.readers.connect_floor(floor, address, bench.sessions).await?;
        if bench.forward {
            floor.done(&follow(bench, &stage.plan, &stage.publisher)?).await?;
        }
    }
    report.memory_after.extend(memory(stage).await?);
    for cycle in 1..=bench.cycles {
        let connects = connect(bench, stage).await?;
        report.flawless &= connects.result.failed.is_empty();
        report.connects.push(connects);
        if cycle == 1 && bench.idle > 0 {
            report.idle = idle(bench, stage).await?;
        }
        rounds(bench, stage, &mut report).await?;
        stage.readers.all(&Order::Leave).await?;
        if bench.cycles > 1 {
            settle(stage).await?;
        }
        report.memory_after.extend(memory(stage).await?);
    }
    report.flawless &= report.rounds.iter().all(|round| round.figures.is_flawless());
    report.ratio = report::ratio(&report.rounds, RoundKind::Floor);
    report.ratio_to_forward = report::ratio(&report.rounds, RoundKind::Forward);
    Ok(report)
}

async fn connect(bench: &Options, stage: &mut Stage) -> Result<Connects> {
    let bar = bar(u64::from(bench.sessions), "connecting");
    let before = stage.read(Side::Node).await?;
    let began = Instant::now();
    let events = stage.published.0;
    let result =
        stage.readers.connect(&stage.plan, bench.sessions, events, |seen| bar.set_position(seen)).await?;
    let seconds = began.elapsed().as_secs_f64();
    bar.finish_and_clear();
    ensure!(result.welcomed > 0, "no session was welcomed: {:?}", result.failed);
    let after = stage.read(Side::Node).await?;
    stage.start(&result.followers);
    let each = |whole: f64| (!stage.meters.is_empty()).then(|| whole / result.welcomed as f64);
    Ok(Connects {
        seconds,
        cpu_micros_each: each((after.cpu - before.cpu) * 1e6),
        memory_each: each(after.memory as f64 - before.memory as f64),
        result,
    })
}

/// Resident memory of the nodes, where it can be read.
async fn memory(stage: &Stage) -> Result<Option<u64>> {
    let reading = stage.read(Side::Node).await?;
    Ok((!stage.meters.is_empty()).then_some(reading.memory))
}

/// Waits until the memory of the nodes has settled.
async fn settle(stage: &Stage) -> Result<()> {
    let began = Instant::now();
    let (mut least, mut fell) = (memory(stage).await?, began);
    while fell.elapsed() < STILL && began.elapsed() < SETTLE {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = memory(stage).await?;
        if now < least {
            (least, fell) = (now, Instant::now());
        }
    }
    Ok(())
}

async fn idle(bench: &Options, stage: &Stage) -> Result<Option<Idle>> {
    if stage.meters.is_empty() {
        return Ok(None);
    }
    let bar = bar(bench.idle, "idle");
    let (before, began) = (stage.read(Side::Node).await?, Instant::now());
    for _ in 0..bench.idle {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let Footprint { cpu, .. } = stage.read(Side::Node).await?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu_micros = (cpu - before.cpu) * 1e6 / seconds / f64::from(bench.sessions);
    Ok(Some(Idle { seconds, cpu_micros }))
}

async fn rounds(bench: &Options, stage: &mut Stage, report: &mut Report) -> Result<()> {
    let events = bench.events.unwrap_or(match bench.pace {
        Pace::Lone => 20,
        Pace::Flat => 2000,
        Pace::Rate(rate) => (SPAN.as_nanos() / Duration::from_secs_f64(1.0 / rate).as_nanos().max(1)) as u64,
    });
    let ways = [
        (bench.floor, RoundKind::Floor),
        (bench.forward, RoundKind::Forward),
        (true, RoundKind::Node),
        (bench.slow > 0, RoundKind::NodeWithSlow),
    ];
    let ways: Vec<RoundKind> = ways.into_iter().filter_map(|(wanted, way)| wanted.then_some(way)).collect();
    for number in 0..bench.rounds {
        for way in &ways {
            let bar = bar(events, &format!("round {} of {}, {way:?}", number + 1, bench.rounds));
            let round = stage.round(*way, bench.pace, events, |seen| bar.set_position(seen)).await?;
            bar.finish_and_clear();
            report.rounds.push(round);
        }
    }
    Ok(())
}

fn load(bench: &Options) -> std::collections::BTreeMap<&'static str, serde_json::Value> {
    let pace = match bench.pace {
        Pace::Lone => json!("lone"),
        Pace::Flat => json!(format!("flat, window {}", bench.window)),
        Pace::Rate(rate) => json!(rate),
    };
    let by = bench.by.map_or(if bench.redis.is_empty() { "http" } else { "recorded" }, |by| match by {
        By::Recorded => "recorded",
        By::Live => "live",
        By::Http => "http",
        By::HttpLive => "http, live",
    });
    let nodes = bench.nodes.len() + bench.spawn.unwrap_or(0) as usize;
    [
        ("sessions", json!(bench.sessions)),
        ("nodes", json!(nodes)),
        ("topics", json!(bench.topics)),
        ("topics per session", json!(bench.per_session)),
        ("payload", json!(bench.payload)),
        ("pace", pace),
        ("by", json!(by)),
    ]
    .into()
}

/// A progress bar; nothing where standard error is no terminal.
fn bar(length: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:28} {bar:40} {pos}/{len}");
    let bar = ProgressBar::new(length).with_message(what.to_owned());
    style.map_or(bar.clone(), |style| bar.with_style(style))
}
