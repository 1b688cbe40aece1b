//! What `carillon doctor` finds out about Redis: whether it can be used, and whether it is set up as it should be.
//!
//! Looks only; nothing is loaded or changed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fred::types::Value;
use futures_util::future::BoxFuture;
use tokio::{sync::mpsc, time::timeout};

use super::{
    Target,
    connection::{Connection, PATIENCE, Subscriber, SubscriptionChange},
    fault::{ConnectError, Fault, describe},
    fitness::{names, unfit},
    foreign,
    incoming::Message,
    library::{self, Loaded},
    reply, rights,
};
use crate::{
    bus::{Settings, Source, keys::Keys, remedy},
    shutdown::Tasks,
};

/// How a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// As it should be.
    Good,
    /// It works, but not as safely as it could.
    Advice,
    /// A node cannot work like this.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub what: &'static str,
    /// How it weighs.
    pub weight: Weight,
    /// What was found, and what to do about it.
    pub detail: String,
}

fn finding(what: &'static str, weight: Weight, detail: impl Into<String>) -> Finding {
    Finding { what, weight, detail: detail.into() }
}

/// Looks at the Redis of these settings; ends with the first thing that stands in the way of the rest. The future is
/// in a box, so that it is compiled here, and not again with the command line.
pub fn examine<'a>(settings: &'a Settings, tasks: &'a Tasks) -> BoxFuture<'a, Vec<Finding>> {
    Box::pin(async move {
        let mut findings = Vec::new();
        if let Err(last) = look(settings, tasks, &mut findings).await {
            findings.push(last);
        }
        findings
    })
}

async fn look(settings: &Settings, tasks: &Tasks, findings: &mut Vec<Finding>) -> Result<(), Finding> {
    let target = settings.redis.clone().unwrap_or_default();
    let place = target.shown();
    let access = target.access().map_err(|e| finding("address", Weight::Bad, e.to_string()))?;
    let unreachable = |connect_error| match connect_error {
        ConnectError::Permanent(text) => finding("connection", Weight::Bad, text),
        ConnectError::Transient(text) => {
            let text = format!("Redis at {place} cannot be reached: {text}. Check redis.url and the network");
            finding("connection", Weight::Bad, text)
        }
    };
    let commands: Connection = Connection::open(Arc::new(access), tasks).await.map_err(unreachable)?;
    findings.push(finding("connection", Weight::Good, format!("connected to {place}")));
    for master in commands.masters() {
        let answer = commands.command_to(master.as_ref(), "INFO", Vec::new()).await;
        let info = reply::text(answer.map_err(|e| refused("server", e.into(), &place))?);
        server(&info, &target, &place, findings)?;
        findings.push(library_state(&commands, master.as_ref(), settings, &place).await?);
        findings.extend(history(&commands, master.as_ref(), settings).await);
        memory(&info, findings);
        findings.extend(clients(&info));
        findings.extend(writes(&commands, master.as_ref(), settings).await);
        persistence(&commands, master.as_ref(), &info, findings).await;
    }
    let theirs = foreign::keys(&commands, settings, &place).await;
    let theirs = theirs.map_err(|e| refused("keys", e.into(), &place))?;
    findings.extend(theirs.map(|text| finding("keys", Weight::Bad, text)));
    findings.extend(sources(&commands, settings).await);
    let subscriber = commands.another::<Subscriber>().await.map_err(unreachable)?;
    let messages = take(&subscriber, tasks);
    let missing = rights::missing(&commands, &subscriber, settings).await;
    let missing = missing.map_err(|e| refused("rights", e.into(), &place))?;
    if let Some(connect_error) = missing.connect_error(&place) {
        return Err(finding("rights", Weight::Bad, connect_error.into_text()));
    }
    findings.push(round_trip(&commands, &subscriber, messages, settings, &target).await?);
    findings.push(own_connection(&subscriber, settings).await);
    Ok(())
}

fn refused(what: &'static str, fault: Fault, place: &str) -> Finding {
    let (ConnectError::Permanent(text) | ConnectError::Transient(text)) =
        ConnectError::answered(fault, place);
    finding(what, Weight::Bad, text)
}

fn server(info: &str, target: &Target, place: &str, findings: &mut Vec<Finding>) -> Result<(), Finding> {
    if let Some(ConnectError::Permanent(text) | ConnectError::Transient(text)) =
        unfit(info, target.is_sharded(), place)
    {
        return Err(finding("server", Weight::Bad, text));
    }
    let server = match names(info) {
        (None, version) => format!("Redis {version}"),
        (Some(valkey), version) => format!("Valkey {valkey} (compatible with Redis {version})"),
    };
    findings.push(finding("server", Weight::Good, format!("{server}, master")));
    Ok(())
}

/// Whether it takes writes. SET with XX on a key that does not exist changes nothing, but is refused if writes are.
async fn writes(
    commands: &Connection,
    master: Option<&fred::prelude::Server>,
    settings: &Settings,
) -> Option<Finding> {
    let keys = Keys::new(&settings.prefix);
    let is_here = |key: &String| master.is_none() || commands.layout().owner(key).as_ref() == master;
    // Names fall on slots evenly: a handful of tries.
    let key = (0..100_000).map(|n| keys.probe(&format!("doctor-{n}"))).find(is_here)?;
    let args = vec![key.as_str().into(), "".into(), "XX".into()];
    let error = commands.command("SET", &key, args, PATIENCE).await.err()?;
    let Fault::NoWrites(text) = error.into() else { return None };
    let remedy = remedy(&text);
    let text = format!("Redis refuses writes, so that nothing can be published ({text}).{remedy}");
    Some(finding("writes", Weight::Bad, text))
}

async fn library_state(
    commands: &Connection,
    master: Option<&fred::prelude::Server>,
    settings: &Settings,
    place: &str,
) -> Result<Finding, Finding> {
    let state = library::inspect(commands, master, settings).await;
    Ok(match state.map_err(|fault| refused("library", fault, place))? {
        Loaded::Same => finding("library", Weight::Good, "loaded, with the settings of this configuration"),
        Loaded::Older => {
            finding("library", Weight::Advice, "loaded in an older version: the next node replaces it")
        }
        Loaded::Behind => {
            let text =
                "loaded with settings of a lower generation: the next node of this configuration replaces it";
            finding("library", Weight::Advice, text)
        }
        Loaded::Ahead(theirs) => finding("library", Weight::Advice, library::ahead(&theirs, settings)),
        Loaded::Missing => match cannot_load(commands, master, settings).await {
            None => finding("library", Weight::Advice, "not loaded: the first node loads it when it starts"),
            Some(text) if text.starts_with("NOPERM") => {
                let text = "not loaded, and this user has no right to load it: allow it with ACL SETUSER <user> +function|load, \
                            or load it as an administrator with carillon redis-function --config FILE | redis-cli -x FUNCTION LOAD, with this node's FILE";
                finding("library", Weight::Bad, text)
            }
            Some(text) if text.contains("already exists") => {
                finding("library", Weight::Bad, foreign::functions(settings, place, &text))
            }
            Some(text) => refused("library", Fault::Refused(text), place),
        },
        Loaded::Different(what) => {
            finding("library", Weight::Bad, library::different(&what, settings, place))
        }
    })
}

/// Whether functions may say whose history an answer is from; nothing where the library is not loaded.
async fn history(
    commands: &Connection,
    master: Option<&fred::prelude::Server>,
    settings: &Settings,
) -> Option<Finding> {
    let heads = Keys::new(&settings.prefix).function("heads");
    let answer = commands.command_to(master, "FCALL", vec![heads.into(), 0.into(), "look".into()]).await;
    let lineage = reply::items(answer.ok()?).into_iter().next().map(reply::text)?;
    lineage.is_empty().then(|| {
        let text = "functions may not use INFO here: nodes ask for it before and behind each call instead, which is as safe. Only \
                    FCALL carillon_positions is refused: ask a node (GET /positions)";
        finding("functions", Weight::Advice, text)
    })
}

/// Why this user cannot load a library. Redis looks at rights, and whether there is one of this name, before it looks at the
/// text: one that cannot be loaded tells them without loading anything.
async fn cannot_load(
    commands: &Connection,
    master: Option<&fred::prelude::Server>,
    settings: &Settings,
) -> Option<String> {
    let broken = format!("#!lua name={}\n(", settings.prefix);
    let answer = commands.command_to(master, "FUNCTION", vec!["LOAD".into(), broken.into()]).await;
    let text = describe(&answer.err()?);
    ["NOPERM", "unknown command", "already exists"].iter().any(|words| text.contains(words)).then_some(text)
}

fn memory(info: &str, findings: &mut Vec<Finding>) {
    let field = |name| reply::info(info, name).unwrap_or_default();
    let (limit, policy) = (field("maxmemory"), field("maxmemory_policy"));
    findings.push(if limit == "0" || policy == "noeviction" {
        finding("memory", Weight::Good, format!("maxmemory-policy {policy}, maxmemory {limit}"))
    } else {
        let text = format!(
            "maxmemory-policy is {policy}: Redis may throw away logs, and sessions are told to refetch. Set noeviction"
        );
        finding("memory", Weight::Advice, text)
    });
}

/// Whether there is room for the connections of more nodes and publishers.
fn clients(info: &str) -> Option<Finding> {
    let number = |name| reply::info(info, name)?.parse::<u64>().ok();
    let (connected, most) = (number("connected_clients")?, number("maxclients")?);
    (connected * 10 >= most * 9).then(|| {
        let text = format!(
            "{connected} of {most} connections are in use (maxclients), and a node needs three: raise maxclients in redis.conf"
        );
        finding("clients", Weight::Advice, text)
    })
}

/// What CONFIG GET tells, where this user may ask.
async fn persistence(
    commands: &Connection,
    master: Option<&fred::prelude::Server>,
    info: &str,
    findings: &mut Vec<Finding>,
) {
    let field = |name| reply::info(info, name).unwrap_or_default();
    let names = ["save", "client-output-buffer-limit", "min-replicas-to-write", "timeout"];
    let args = std::iter::once("GET").chain(names).map(Value::from).collect();
    let config = match commands.command_to(master, "CONFIG", args).await {
        Ok(Value::Map(map)) => map
            .inner()
            .into_iter()
            .map(|(name, value)| (name.into_string().unwrap_or_default(), reply::text(value)))
            .collect(),
        Ok(list) => reply::pairs(list),
        Err(error) => {
            let text =
                format!("not looked at, because this user may not use CONFIG GET ({})", describe(&error));
            findings.push(finding("configuration", Weight::Good, text));
            return;
        }
    };
    let value = |name: &str| config.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.as_str());
    findings.push(if field("aof_enabled") == "1" || !value("save").is_empty() {
        finding("persistence", Weight::Good, "logs survive a restart of Redis")
    } else {
        let text =
            "neither RDB nor AOF: after a restart of Redis every session refetches. Set appendonly yes";
        finding("persistence", Weight::Advice, text)
    });
    if field("connected_slaves") != "0" && value("min-replicas-to-write") == "0" {
        let text = "min-replicas-to-write is 0: a master that was cut off goes on accepting events that are lost in the \
                    failover. Set 1";
        findings.push(finding("replicas", Weight::Advice, text));
    }
    if !["", "0"].contains(&value("timeout")) {
        let text = format!(
            "timeout is {}: Redis closes connections that are quiet for so many seconds, those of publishers too. Set 0",
            value("timeout")
        );
        findings.push(finding("timeout", Weight::Advice, text));
    }
    let limit = value("client-output-buffer-limit");
    let pubsub = limit.split_once("pubsub ").map_or("", |(_, rest)| rest);
    let hard = pubsub.split(' ').next().and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
    if hard != 0 && hard < 8 << 20 {
        let text = format!(
            "client-output-buffer-limit pubsub is {hard} bytes: a burst cuts off nodes. Redis' default is 33554432 8388608 60"
        );
        findings.push(finding("output buffer", Weight::Advice, text));
    }
}

/// Who vouches for themselves, and whether one is late. Nothing where nobody does, or where it cannot be asked: what is
/// wrong then is said already.
async fn sources(commands: &Connection, settings: &Settings) -> Option<Finding> {
    let keys = Keys::new(&settings.prefix);
    let args = vec![keys.function("sources").into(), 1.into(), keys.sources().into()];
    let answer = commands.command("FCALL", &keys.sources(), args, PATIENCE).await.ok()?;
    let mut sources = super::sources::read(reply::items(answer));
    sources.list.retain(Source::is_present);
    let late = sources.list.iter().filter(|source| source.is_late(sources.now));
    let late: Vec<_> =
        late.map(|source| format!("{} ({})", source.name, source.in_words(sources.now))).collect();
    Some(match (sources.list.len(), late.is_empty()) {
        (0, _) => return None,
        (_, true) => finding("sources", Weight::Good, "every publisher that vouches for itself is well"),
        _ => {
            let text = format!(
                "changes made through {} may be late. See whether it runs and reaches Redis; if it is gone for good: carillon \
                 source forget NAME",
                late.join(", ")
            );
            finding("sources", Weight::Advice, text)
        }
    })
}

/// Takes what arrives until the connection is closed.
fn take(subscriber: &Connection<Subscriber>, tasks: &Tasks) -> mpsc::Receiver<Message> {
    let (to, taken) = mpsc::channel(64);
    let (mut messages, closed) = (subscriber.messages(), subscriber.closed().clone());
    tasks.spawn_until_end(async move {
        while let Some(Some(message)) = closed.run_until_cancelled(messages.next()).await {
            // What does not fit is not waited for.
            let _ = to.try_send(message);
        }
    });
    taken
}

/// Publishes to a channel of our own and waits for it.
async fn round_trip(
    commands: &Connection,
    subscriber: &Connection<Subscriber>,
    mut messages: mpsc::Receiver<Message>,
    settings: &Settings,
    target: &Target,
) -> Result<Finding, Finding> {
    let place = target.shown();
    let channel = Keys::new(&settings.prefix).probe(&format!("doctor-{:016x}", rand::random::<u64>()));
    let change =
        if target.is_sharded() { SubscriptionChange::SubscribeShards } else { SubscriptionChange::Subscribe };
    let subscribe = async || {
        let owner = subscriber.layout().owner(&channel);
        let socket = subscriber.socket(owner.as_ref().unwrap_or(&subscriber.layout().masters()[0])).await?;
        socket.confirmed(change, std::slice::from_ref(&channel)).await
    };
    let mut subscribed = subscribe().await;
    if target.is_sharded() && subscribed.is_err() {
        // Its slot may have moved.
        let _ = subscriber.look_around().await;
        subscribed = subscribe().await;
    }
    subscribed.map_err(|e| refused("round trip", e.into(), &place))?;
    let started = Instant::now();
    let publish = if target.is_sharded() { "SPUBLISH" } else { "PUBLISH" };
    let sent = commands.command(publish, &channel, vec![channel.as_str().into(), "?".into()], PATIENCE).await;
    sent.map_err(|e| refused("round trip", e.into(), &place))?;
    match timeout(PATIENCE, messages.recv()).await {
        Ok(Some(_)) => {
            let taken = started.elapsed();
            let weight = if taken < Duration::from_millis(100) { Weight::Good } else { Weight::Advice };
            Ok(finding("round trip", weight, format!("published and received back in {taken:.1?}")))
        }
        _ => Err(finding(
            "round trip",
            Weight::Bad,
            "published, but not received back: pub/sub does not work here",
        )),
    }
}

async fn own_connection(subscriber: &Connection<Subscriber>, settings: &Settings) -> Finding {
    match subscriber.command_to(None, "CLIENT", vec!["INFO".into()]).await {
        Ok(_) => finding("rights", Weight::Good, "this user may look at its own connection (CLIENT INFO)"),
        Err(error) => {
            let text = format!(
                "a lost subscription is noticed late, because this user may not use CLIENT INFO ({}): by comparing logs, after \
                 8 to 45 s and two probes instead of {:?}, and never where only live events are published. Allow it with ACL \
                 SETUSER <user> +client|info",
                describe(&error),
                settings.probe_interval
            );
            finding("rights", Weight::Advice, text)
        }
    }
}
