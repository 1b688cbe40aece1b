//! What a log costs and survives in Redis: quiet ones are short strings, no log is opened in a full Redis, and whatever is
//! done to a key by hand, no two events ever share a position.

use std::time::Duration;

use crate::support::{
    bus::{TestBus, event, numbered, settings, topic},
    node::{Node, token},
    redis::RedisServer,
};
use carillon::{
    bus::{BusError, Settings, redis::library},
    protocol::EntryId,
};
use serde_json::json;

const LOG: &str = "carillon:comments:1";

async fn head(bus: &TestBus, at: &str) -> Result<EntryId, BusError> {
    bus.bus.heads(vec![topic(at)]).await.remove(0).map(|head| head.top)
}

async fn publish(bus: &TestBus, n: u64) -> EntryId {
    bus.bus.publish(topic("comments:1"), numbered(n)).await.unwrap()
}

fn used_memory(redis: &RedisServer) -> u64 {
    let info = redis.command(&["INFO", "memory"]);
    info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok()).unwrap()
}

#[tokio::test]
async fn a_quiet_log_is_a_short_string_that_the_first_event_turns_into_a_stream() {
    let redis = RedisServer::start();
    let bus = TestBus::over(&redis.url()).await;
    let opened = head(&bus, "comments:1").await.unwrap();
    assert_eq!(opened.seq, 0);
    let encoding = redis.command(&["OBJECT", "ENCODING", LOG]);
    assert!(["int", "embstr"].contains(&encoding.trim()), "{encoding}");
    assert_eq!(redis.command(&["GET", LOG]).trim(), opened.epoch.to_string());
    let life = |redis: &RedisServer| redis.command(&["PTTL", LOG]).trim().parse::<u64>().unwrap();
    let ttl = u64::try_from(bus.settings.log_ttl.as_millis()).unwrap();
    assert!(life(&redis) > ttl && life(&redis) <= ttl * 3 / 2);
    assert_eq!(head(&bus, "comments:1").await.unwrap(), opened, "looking opens nothing anew");
    let quiet = bus.bus.history(topic("comments:1"), opened).await.unwrap();
    assert_eq!((quiet.head.top, quiet.entries.len()), (opened, 0));

    assert_eq!(publish(&bus, 1).await, opened.next());
    assert_eq!(redis.command(&["TYPE", LOG]).trim(), "stream");
    assert!(life(&redis) > ttl && life(&redis) <= ttl * 3 / 2);
    assert_eq!(publish(&bus, 2).await.seq, 2);
    let read = bus.bus.history(topic("comments:1"), opened).await.unwrap();
    assert_eq!(read.entries.iter().map(|(id, _)| id.seq).collect::<Vec<_>>(), [1, 2]);

    // With less than one life left, following and publishing renew it.
    redis.command(&["PEXPIRE", LOG, "50000"]);
    head(&bus, "comments:1").await.unwrap();
    assert!(life(&redis) > ttl);
    redis.command(&["PEXPIRE", LOG, "50000"]);
    publish(&bus, 3).await;
    assert!(life(&redis) > ttl);
    bus.end().await;
}

/// A log that has no event yet keeps its place while nobody follows it.
#[tokio::test]
async fn who_comes_back_to_a_quiet_topic_after_twelve_hours_gets_exactly_what_happened() {
    let redis = RedisServer::with_clock("+0s");
    let node = Node::start(&[("redis.url", &redis.url())]).await;
    let topics = json!(["comments:quiet"]);
    let (anna, welcome) = node.session("anna", &["comments:quiet"]).await;
    drop(anna);
    let now = || redis.command(&["TIME"]).split_whitespace().next().unwrap().parse::<u64>().unwrap();
    let before = now();
    redis.set_clock("+12h");
    assert!(now() >= before + 12 * 3600, "the clock was moved");
    for n in 1..=2 {
        node.publish("comments:quiet", &json!({"type": "a.b", "n": n})).await;
    }
    let resume = json!({"at": welcome["at"], "positions": welcome["positions"]});
    let mut back = node.socket().await;
    let connect =
        json!({"type": "connect", "token": token("anna", &["*"]), "topics": topics, "resume": resume});
    back.send(&connect).await;
    assert_eq!(back.message().await["type"], "welcome");
    for n in 1..=2 {
        assert_eq!(back.message().await["event"]["n"], n);
    }
    back.nothing_comes().await;
}

#[tokio::test]
async fn a_quiet_followed_topic_costs_redis_at_most_180_bytes() {
    const TOPICS: u64 = 20_000;
    let redis = RedisServer::start();
    let bus = TestBus::over(&redis.url()).await;
    let topics = |from: u64, to: u64| (from..to).map(|n| topic(&format!("comments:quiet-{n:06}"))).collect();
    for head in bus.bus.heads(topics(0, 10)).await {
        head.unwrap();
    }
    let before = used_memory(&redis);
    for head in bus.bus.heads(topics(10, TOPICS + 10)).await {
        assert_eq!(head.unwrap().top.seq, 0);
    }
    let each = (used_memory(&redis) - before) / TOPICS;
    assert!(each <= 180, "{each} bytes");
    bus.end().await;
}

#[tokio::test]
async fn while_redis_is_full_following_opens_no_log_and_stops_no_other() {
    let redis = RedisServer::start();
    let bus = TestBus::over(&redis.url()).await;
    let last = publish(&bus, 1).await;
    let quiet = head(&bus, "comments:2").await.unwrap();
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let keys = redis.command(&["DBSIZE"]);
    for _ in 0..3 {
        let asked = ["comments:3", "comments:1", "comments:4", "comments:2"].map(topic).to_vec();
        let heads = bus.bus.heads(asked).await;
        let tops = heads.iter().map(|head| head.as_ref().ok().map(|head| head.top)).collect::<Vec<_>>();
        assert_eq!(tops, [None, Some(last), None, Some(quiet)]);
        for head in [&heads[0], &heads[2]] {
            assert!(matches!(head, Err(BusError::Refused(text)) if text.starts_with("OOM")), "{head:?}");
        }
    }
    let gone = bus.bus.history(topic("comments:5"), last).await;
    assert!(matches!(&gone, Err(BusError::Refused(text)) if text.starts_with("OOM")), "{gone:?}");
    assert_eq!(bus.bus.history(topic("comments:1"), EntryId::default()).await.unwrap().entries.len(), 1);
    assert_eq!(redis.command(&["DBSIZE"]), keys);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(head(&bus, "comments:3").await.unwrap().seq, 0);
    let begun = bus.bus.history(topic("comments:5"), last).await.unwrap();
    assert_eq!((begun.head.top.seq, begun.entries.len()), (0, 0));
    bus.end().await;
}

#[tokio::test]
async fn a_key_that_may_not_be_touched_is_the_error_of_its_own_topic() {
    let redis = RedisServer::with(
        "save \"\"\nuser anna on >pw +@all allchannels ~carillon:comments:* ~carillon:*{*\n",
    );
    let mut settings = settings(Some(&redis.url()));
    let target = settings.redis.as_mut().unwrap();
    (target.username, target.password) = (Some("anna".into()), Some("pw".into()));
    let bus = TestBus::start(settings).await;
    let heads = bus.bus.heads(["comments:1", "projects:1", "comments:2"].map(topic).to_vec()).await;
    assert!(heads[0].is_ok() && heads[2].is_ok());
    assert!(
        matches!(&heads[1], Err(BusError::Refused(text)) if text.starts_with("NOPERM")),
        "{:?}",
        heads[1]
    );
    bus.end().await;
}

#[tokio::test]
async fn logs_of_earlier_releases_are_read_as_before() {
    let redis = RedisServer::start();
    let bus = TestBus::over(&redis.url()).await;
    // As releases before this one opened a log.
    redis.command(&["XADD", LOG, "1700000000000-0", "event", ""]);
    redis.command(&["XTRIM", LOG, "MAXLEN", "0"]);
    let opened = EntryId { epoch: 1_700_000_000_000, seq: 0 };
    assert_eq!(head(&bus, "comments:1").await.unwrap(), opened);
    assert_eq!(bus.bus.history(topic("comments:1"), opened).await.unwrap().entries.len(), 0);
    assert_eq!(publish(&bus, 1).await, opened.next());

    // Ids that they had seen are known: with the time of the hash's beginning, and in the hash before it.
    let now = redis.command(&["TIME"]).lines().next().unwrap().parse::<u64>().unwrap() * 1000;
    let seen = |hash: &str, id: &str| {
        let hash = format!("carillon:{hash}:{{carillon:comments:1}}");
        redis.command(&[
            "HSET",
            &hash,
            "",
            &(now - 1000).to_string(),
            &format!("3:cms{id}"),
            &format!("{now} 7-{id}"),
        ]);
    };
    seen("ids", "1");
    seen("ids-before", "2");
    let named = async |id: u64| {
        let event = event(&format!(r#"{{"type":"a.b","source":"cms","id":"{id}"}}"#));
        bus.bus.publish(topic("comments:1"), event).await.unwrap()
    };
    for _ in 0..2 {
        assert_eq!(named(1).await, EntryId { epoch: 7, seq: 1 });
        assert_eq!(named(2).await, EntryId { epoch: 7, seq: 2 });
        assert_eq!(named(3).await, opened.next().next());
    }
    bus.end().await;
}

#[tokio::test]
async fn an_earlier_library_that_comes_back_is_replaced_within_a_few_probes() {
    let redis = RedisServer::start();
    let ours = settings(Some(&redis.url()));
    let bus = TestBus::start(ours.clone()).await;
    let text = library(&ours);
    let own = text.split_once("local VERSION = ").unwrap().1.split(' ').next().unwrap();
    let earlier = text.replace(&format!("local VERSION = {own} "), "local VERSION = 1 ");
    redis.command(&["FUNCTION", "LOAD", "REPLACE", &earlier]);
    let loaded = || redis.command(&["FCALL", "carillon_settings", "0"]).lines().nth(1).unwrap().to_owned();
    while loaded() != own {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(bus.bus.health().live);
    bus.end().await;
}

#[tokio::test]
async fn whatever_is_done_to_a_log_by_hand_no_position_is_given_twice() {
    let redis = RedisServer::start();
    let bus = TestBus::start(Settings { log_length: 5, ..settings(Some(&redis.url())) }).await;
    let first = publish(&bus, 1).await;
    let mut last = publish(&bus, 2).await;

    // Entries taken out: the log has reached them all the same.
    redis.command(&["XDEL", LOG, &last.to_string()]);
    assert_eq!(head(&bus, "comments:1").await.unwrap(), last);
    assert_eq!(publish(&bus, 3).await, last.next());
    last = publish(&bus, 4).await;
    redis.command(&["XTRIM", LOG, "MAXLEN", "0"]);
    assert_eq!(head(&bus, "comments:1").await.unwrap(), last);
    assert_eq!(bus.bus.history(topic("comments:1"), first).await.unwrap().head.top, last);
    assert_eq!(publish(&bus, 5).await, last.next());

    // Deleted and begun anew at once, by a publisher and by a follower, in one step of Redis' clock.
    for quiet in [false, true] {
        for _ in 0..20 {
            let before = publish(&bus, 6).await;
            redis.command(&["DEL", LOG]);
            if quiet {
                assert!(head(&bus, "comments:1").await.unwrap().epoch > before.epoch);
            }
            let after = publish(&bus, 7).await;
            assert!(after.epoch > before.epoch && after.seq == 1, "{before} {after}");
        }
    }

    // A log of an earlier epoch put back: its numbers are not continued in the later one.
    last = publish(&bus, 8).await;
    redis.command(&["DEL", LOG]);
    redis.command(&["XADD", LOG, "1700000000000-7", "event", r#"{"type":"a.b"}"#]);
    let after = publish(&bus, 9).await;
    assert!(after.epoch > last.epoch && after.seq == 1, "{last} {after}");

    // Of a later one, and a string of another epoch: these go on.
    let ahead = after.epoch + 1_000_000;
    redis.command(&["XADD", LOG, &format!("{ahead}-3"), "event", r#"{"type":"a.b"}"#]);
    assert_eq!(publish(&bus, 10).await, EntryId { epoch: ahead, seq: 4 });
    redis.command(&["SET", LOG, "1700000000001"]);
    assert_eq!(publish(&bus, 11).await, EntryId { epoch: 1_700_000_000_001, seq: 1 });

    // What is no log refuses a publish, and goes when the topic is followed.
    for other in [&["SET", LOG, "by hand"][..], &["LPUSH", LOG, "x"], &["SET", LOG, "-5"]] {
        redis.command(&["DEL", LOG]);
        redis.command(other);
        let refused = bus.bus.publish(topic("comments:1"), numbered(12)).await;
        assert!(
            matches!(&refused, Err(BusError::Refused(text)) if text.starts_with("WRONGTYPE")),
            "{refused:?}"
        );
        let opened = head(&bus, "comments:1").await.unwrap();
        assert_eq!(publish(&bus, 12).await, opened.next());
    }
    bus.end().await;
}

#[tokio::test]
async fn one_event_goes_to_several_topics_all_checked_before_any_is_published() {
    let redis = RedisServer::start();
    let mut bus = TestBus::over(&redis.url()).await;
    bus.follow(&["comments:1", "comments:2", "projects"]).await;
    let call = |event: &str, keys: &[&str]| {
        let count = keys.len().to_string();
        let args = [&["FCALL", "carillon_publish", &count][..], keys, &[event]].concat();
        redis.command(&args).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = ["carillon:comments:1", "carillon:projects", "carillon:comments:2"];
    let json = r#"{"type":"a.b","id":"1"}"#;
    let ids = call(json, &all);
    assert_eq!(ids.len(), 3);
    assert_eq!(call(json, &all), ids, "a repetition gets the first ids");
    // Companions among the keys are no topics.
    let companions = ["carillon:ids:{carillon:comments:1}", "carillon:ids-before:{carillon:comments:1}"];
    assert_eq!(call(json, &[all[0], companions[0], companions[1]]), ids[..1]);
    assert!(call(json, &companions)[0].starts_with("ERR usage"));
    for (bad, says) in
        [("carillon:nowhere:1", "TOPIC"), ("carillon:comments:", "TOPIC"), ("other:comments", "TOPIC")]
    {
        let answer = call(r#"{"type":"a.b"}"#, &[all[0], bad, all[2]]);
        assert!(answer[0].starts_with(says), "{answer:?}");
    }
    assert!(call("{}", &all)[0].starts_with("EVENT"));
    let got = bus.deliveries_so_far().await;
    let got = got.iter().map(|delivery| delivery.topic.as_str()).collect::<Vec<_>>();
    assert_eq!(got, ["comments:1", "projects", "comments:2"]);

    // Where they stand, for a page that a server renders.
    let answer = redis.command(&["FCALL", "carillon_positions", "2", all[0], "carillon:comments:9"]);
    let head = bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap();
    let lines = answer.lines().collect::<Vec<_>>();
    assert!(lines.len() == 3 && lines[0].parse::<u64>().unwrap() > 1_700_000_000_000, "{answer}");
    assert_eq!(lines[1], format!("{}.{}", head.lineage, ids[0]));
    assert!(lines[2].ends_with("-0"));
    bus.end().await;
}

#[tokio::test]
async fn what_somebody_put_in_the_place_of_a_topics_keys_refuses_the_whole_call() {
    let redis = RedisServer::start();
    let mut bus = TestBus::over(&redis.url()).await;
    bus.follow(&["comments:1"]).await;
    let call = |count: &str, rest: &[&str]| {
        redis.command(&[&["FCALL", "carillon_publish", count][..], rest].concat())
    };
    let theirs = [
        &["LPUSH", "carillon:projects:1", "x"][..],
        &["SET", "carillon:projects:1", "by hand"],
        &["SET", "carillon:projects:1", ""],
        &["SET", "carillon:ids:{carillon:projects:1}", "x"],
        &["LPUSH", "carillon:ids-before:{carillon:projects:1}", "x"],
    ];
    for other in theirs {
        redis.command(other);
        for event in [r#"{"type":"a.b","id":"2"}"#, r#"{"type":"a.b"}"#] {
            if event.contains("id") || !other[1].contains("ids") {
                let answer = call("2", &["carillon:comments:1", "carillon:projects:1", event]);
                assert!(answer.starts_with("WRONGTYPE"), "{other:?}: {answer}");
            }
        }
        // Several events of one topic are one step, too.
        let answer = call("1", &["carillon:projects:1", r#"{"type":"a.b"}"#, r#"{"type":"a.b","id":"3"}"#]);
        assert!(answer.starts_with("WRONGTYPE"), "{other:?}: {answer}");
        redis.command(&["DEL", other[1]]);
        assert_eq!(redis.command(&["EXISTS", "carillon:projects:1"]).trim(), "0", "{other:?}");
    }
    assert!(bus.deliveries_so_far().await.is_empty());
    bus.end().await;
}

#[tokio::test]
async fn sources_are_vouched_for_and_at_most_64_are_remembered() {
    let redis = RedisServer::start();
    let bus = TestBus::over(&redis.url()).await;
    let report = |args: &[&str]| {
        let call = [&["FCALL", "carillon_source", "1", "carillon:sources"][..], args].concat();
        redis.command(&call).trim().to_owned()
    };
    let sources = || {
        let answer = redis.command(&["FCALL", "carillon_sources", "1", "carillon:sources"]);
        let mut lines = answer.lines().map(str::to_owned).collect::<Vec<_>>();
        (lines.remove(0).parse::<u64>().unwrap(), lines)
    };
    assert_eq!(sources().1.len(), 0);
    assert_eq!(report(&["cms", "20", "12000"]), "OK");
    let (now, listed) = sources();
    let (till, since) = (listed[1].parse::<u64>().unwrap(), listed[2].parse::<u64>().unwrap());
    assert!(listed[0] == "cms" && till > now && till <= now + 20_000 && since <= now - 12_000, "{listed:?}");
    assert_eq!(report(&["cms", "5"]), "OK");
    assert_eq!(sources().1[2], "0", "nothing waits");
    for bad in [
        &["cms"][..],
        &["cms", "4"],
        &["cms", "301"],
        &["cms", "-5"],
        &["cms", "nan"],
        &["cms", "x"],
        &["cms", "20", "-1"],
        &["cms", "20", "inf"],
        &["", "20"],
        &["a b", "20"],
        &[&"n".repeat(65), "20"],
    ] {
        let answer = report(bad);
        assert!(answer.starts_with("SOURCE") || answer.starts_with("ERR usage"), "{bad:?}: {answer}");
    }
    for n in 1..64 {
        assert_eq!(report(&[&format!("cms-{n}"), "20"]), "OK");
    }
    assert!(report(&["one more", "20"]).starts_with("SOURCE"));
    assert!(report(&["one-more", "20"]).contains("64 sources"));
    assert_eq!(report(&["cms-7", "20", "1"]), "OK", "those that are known go on");
    assert_eq!(report(&["cms-7", "0"]), "OK");
    assert_eq!(report(&["one-more", "20"]), "OK");
    // One that ended more than an hour ago makes room.
    redis.command(&["HSET", "carillon:sources", "cms-9", "1000 0"]);
    assert_eq!(report(&["another", "20"]), "OK");
    let listed = sources().1;
    let present = listed.chunks(3).filter(|source| source[1] != "0");
    let names = present.map(|source| source[0].clone()).collect::<Vec<_>>();
    assert!(names.len() == 64 && !names.contains(&"cms-9".into()) && names.contains(&"another".into()));
    bus.end().await;
}
