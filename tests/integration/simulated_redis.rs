//! The simulated Redis held against a real one with the real function library: the same random commands, the same answers.
//! What depends on clocks is compared by what it says: epochs by their order of appearance, marks by the call that set them.

use std::collections::BTreeMap;

use carillon::protocol::{EntryId, Topic};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use crate::support::{
    bus::{TestBus, event, settings, topic},
    redis::RedisServer,
};
use simulated::{Call, Redis, Refusal, Reply};

#[path = "../simulation/redis.rs"]
#[allow(dead_code, reason = "the schedules use more of the simulated Redis than this test")]
mod simulated;

const TOPICS: [&str; 4] = ["comments:1", "comments", "projects", "content:7"];
/// Commands of one sequence.
const COMMANDS: usize = 150;
/// `log.length` of [`settings`].
const LENGTH: usize = 10;
const TTL: u64 = 3_601_000;

/// Both servers, and the names that the real one's epochs go by.
struct Pair {
    real: RedisServer,
    simulated: Redis,
    epochs: BTreeMap<(Topic, String), u64>,
    /// The real clock's moments at which areas were marked, by the simulated mark.
    ticks: u64,
}

impl Pair {
    /// An id of the real server as the simulated one has it.
    fn id(&mut self, topic: &Topic, text: &str, simulated: EntryId) -> EntryId {
        let (epoch, seq) = text.trim().split_once('-').unwrap_or_else(|| panic!("{text:?} is no id"));
        let epoch = *self.epochs.entry((topic.clone(), epoch.to_owned())).or_insert(simulated.epoch);
        EntryId { epoch, seq: seq.parse().unwrap() }
    }

    fn call(&mut self, function: &str, keys: &[&str], arguments: &[&str]) -> Vec<String> {
        let name = format!("carillon_{function}");
        let count = keys.len().to_string();
        let keys: Vec<String> = keys.iter().map(|key| format!("carillon:{key}")).collect();
        let mut command = vec!["FCALL", &name, &count];
        command.extend(keys.iter().map(String::as_str));
        command.extend(arguments);
        self.real.command(&command).lines().map(str::to_owned).collect()
    }

    /// Gives both the same call and compares what they say.
    fn both(&mut self, call: &Call) {
        // A moment of its own for each command, so that no two logs begin in one.
        self.ticks += 1;
        self.simulated.clock += 10;
        let expected = self.simulated.call(call);
        let real = match call {
            Call::Publish(topic, event) => {
                let json = String::from_utf8_lossy(event.json()).into_owned();
                self.call("publish", &[topic.as_str()], &[&json])
            }
            Call::Heads(topics) => {
                let keys: Vec<&str> = topics.iter().map(Topic::as_str).collect();
                self.call("heads", &keys, &[])
            }
            Call::History(topic, after) => {
                // Logs that one call began share a simulated epoch, and may have two real ones.
                let named = |own: bool| {
                    let mut known = self.epochs.iter().filter(|(_, epoch)| **epoch == after.epoch);
                    known.find(|((of, _), _)| !own || of == topic).map(|((_, name), _)| name.clone())
                };
                let name = named(true).or_else(|| named(false));
                let after = format!("{}-{}", name.unwrap_or_else(|| "1".into()), after.seq);
                self.call("history", &[topic.as_str()], &[&after])
            }
            Call::Probe => self.call("probe", &["{probe}"], &["token"]),
            Call::Marks => self.call("marks", &["{marks}"], &[]),
            Call::Mark(areas, ahead) => {
                let ahead = ahead.to_string();
                let arguments: Vec<&str> =
                    std::iter::once(&*ahead).chain(areas.iter().map(String::as_str)).collect();
                self.call("mark", &["{marks}"], &arguments)
            }
        };
        self.compare(call, expected, &real);
        // A log that began now is named after this millisecond: the next one must not begin in it.
        let now = self.moment();
        while self.moment() == now {}
    }

    /// The real server's clock, ms.
    fn moment(&self) -> u64 {
        let time = self.real.command(&["TIME"]);
        let mut parts = time.lines().map(|part| part.trim().parse::<u64>().unwrap());
        parts.next().unwrap() * 1000 + parts.next().unwrap() / 1000
    }

    fn compare(&mut self, call: &Call, expected: Result<Reply, String>, real: &[String]) {
        let first = real.first().map_or("", String::as_str);
        let expected = match expected {
            Ok(reply) => reply,
            Err(text) => {
                let word = text.split(' ').next().unwrap();
                let refused = first.contains(word);
                return assert!(refused, "{call:?}: the simulated Redis says {text}, the real one {real:?}");
            }
        };
        match expected {
            Reply::Published(id, _) => {
                let Call::Publish(topic, _) = call else { unreachable!("it answers a publish") };
                assert_eq!(self.id(topic, first, id), id, "{call:?}");
            }
            Reply::Heads(_, tops) => {
                assert_eq!(real.len(), tops.len() + 2, "{call:?}: {real:?}");
                let Call::Heads(topics) = call else { unreachable!("it answers a look at heads") };
                for ((text, top), topic) in real[2..].iter().zip(tops).zip(topics) {
                    assert_eq!(self.id(topic, text, top), top, "{call:?}: {real:?}");
                }
            }
            Reply::SomeHeads(..) => unreachable!("that is of several calls"),
            Reply::History(_, top, entries) => {
                let Call::History(topic, _) = call else { unreachable!("it answers a read") };
                assert_eq!(self.id(topic, &real[2], top), top, "{call:?}: {real:?}");
                assert_eq!(real.len(), 3 + 2 * entries.len(), "{call:?}: {real:?} against {entries:?}");
                for (pair, (id, event)) in real[3..].chunks(2).zip(entries) {
                    assert_eq!(self.id(topic, &pair[0], id), id, "{call:?}: {real:?}");
                    let json = event.map(|event| String::from_utf8_lossy(event.json()).into_owned());
                    assert_eq!(pair[1], json.unwrap_or_default(), "{call:?}: {real:?}");
                }
            }
            // The lineage, the time, and what the library is: its version and the generation of its settings.
            Reply::Probe(..) => assert!(real.len() == 4, "{call:?}: {real:?}"),
            Reply::Marks(_, marks) => {
                let mut areas: Vec<&str> = real[1..].iter().step_by(2).map(String::as_str).collect();
                areas.sort_unstable();
                assert_eq!(areas, marks.keys().map(String::as_str).collect::<Vec<_>>(), "{call:?}: {real:?}");
            }
        }
    }

    /// Somebody's hand in Redis.
    fn by_hand(&mut self, rng: &mut SmallRng) {
        let name = TOPICS.choose(rng).unwrap();
        let key = format!("carillon:{name}");
        self.simulated.clock += 10;
        // Redis refuses writes by hand as well.
        let first = if self.simulated.refusal.is_some() { 3 } else { 0 };
        match rng.random_range(first..6) {
            0 => {
                self.real.command(&["DEL", &key]);
                self.simulated.logs.remove(&topic(name));
            }
            1 => {
                let keep = rng.random_range(0..4);
                self.real.command(&["XTRIM", &key, "MAXLEN", &keep.to_string()]);
                self.simulated.trim(&topic(name), keep);
            }
            2 => {
                self.real.command(&["FLUSHALL"]);
                self.simulated.flush();
            }
            3 => {
                self.real.command(&["CONFIG", "SET", "min-replicas-to-write", "1", "maxmemory", "0"]);
                self.simulated.refusal = Some(Refusal::NoReplicas);
            }
            4 => {
                self.real.command(&["CONFIG", "SET", "min-replicas-to-write", "0", "maxmemory", "1"]);
                self.simulated.refusal = Some(Refusal::Oom);
            }
            _ => {
                self.real.command(&["CONFIG", "SET", "min-replicas-to-write", "0", "maxmemory", "0"]);
                self.simulated.refusal = None;
            }
        }
    }
}

fn call(rng: &mut SmallRng, seen: &[EntryId], number: usize) -> Call {
    let name = TOPICS.choose(rng).unwrap();
    match rng.random_range(0..12) {
        0..5 => {
            // Now and then the same name again.
            let id = rng.random_range(0..30);
            let json = if rng.random_bool(0.5) {
                format!(r#"{{"type":"a.b","data":{number}}}"#)
            } else {
                format!(r#"{{"type":"a.b","id":"{id}","source":"cms","data":{number}}}"#)
            };
            Call::Publish(topic(name), event(&json))
        }
        5 | 6 => Call::Heads(
            TOPICS.iter().filter(|_| rng.random_bool(0.5)).chain([name]).map(|t| topic(t)).collect(),
        ),
        7 | 8 => {
            let after = seen.choose(rng).copied().unwrap_or(EntryId { epoch: 1, seq: 0 });
            Call::History(topic(name), after)
        }
        9 => Call::Probe,
        10 => Call::Marks,
        _ => Call::Mark(vec![name.split(':').next().unwrap().to_owned()], 2_000),
    }
}

#[tokio::test]
async fn the_simulated_redis_says_what_the_real_one_says() {
    for seed in 0..4 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let real = RedisServer::start();
        // It loads the library; what it does otherwise is nobody's concern here.
        let bus = TestBus::start(settings(Some(&real.url()))).await;
        bus.end().await;
        let mut simulated = Redis::new(LENGTH, TTL);
        simulated.clock = 1_000;
        let mut pair = Pair { real, simulated, epochs: BTreeMap::new(), ticks: 0 };
        let mut seen = Vec::new();
        for number in 0..COMMANDS {
            if rng.random_bool(0.1) {
                pair.by_hand(&mut rng);
                continue;
            }
            pair.both(&call(&mut rng, &seen, number));
            seen.extend(pair.simulated.logs.values().map(|log| log.top));
        }
        assert!(pair.ticks > 100, "only {} commands were compared", pair.ticks);
    }
}
