//! Getting into Redis: passwords, rights, TLS, versions, and nodes that disagree about settings.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{
    bus::{TestBus, areas, numbered, settings, subject, topic},
    redis::{RedisServer, certificates},
};
use carillon::{
    bus::{BusError, BusEvent, Settings, redis},
    protocol::{Areas, Naming},
};

pub(super) async fn works(bus: &mut TestBus) {
    bus.follow(&["comments:1"]).await;
    let id = bus.bus.publish(topic("comments:1"), numbered(7)).await.unwrap();
    bus.recorded("comments:1", id, &numbered(7)).await;
}

pub(super) fn with_login(redis: &RedisServer, username: Option<&str>, password: Option<&str>) -> Settings {
    let mut settings = settings(Some(&redis.url()));
    let target = settings.redis.as_mut().unwrap();
    (target.username, target.password) = (username.map(Into::into), password.map(Into::into));
    settings
}

/// The sentence that a start ends with.
async fn refused(settings: Settings) -> String {
    match TestBus::try_start(settings).await {
        Ok(bus) => panic!("it started: {:?}", bus.bus.health()),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_wrong_password_stops_the_start_and_is_not_repeated() {
    let redis = RedisServer::with("save \"\"\nrequirepass right\nuser anna on >hers ~* &* +@all\n");
    for (user, password) in
        [(None, Some("wrong-secret")), (Some("anna"), Some("wrong-secret")), (Some("bob"), Some("hers"))]
    {
        let text = refused(with_login(&redis, user, password)).await;
        assert!(
            text.contains("redis.password") && text.contains(&redis.url()) && !text.contains("secret"),
            "{text}"
        );
    }
    let text = refused(with_login(&redis, None, None)).await;
    assert!(text.contains("wants a password"), "{text}");
    for (user, password) in [(None, "right"), (Some("anna"), "hers")] {
        let mut bus = TestBus::start(with_login(&redis, user, Some(password))).await;
        works(&mut bus).await;
        bus.end().await;
    }
    let url = format!("redis://anna:hers@127.0.0.1:{}", redis.port());
    let mut bus = TestBus::over(&url).await;
    works(&mut bus).await;
    bus.end().await;
}

#[tokio::test]
async fn what_only_an_operator_can_mend_stops_a_node_that_finds_it_later() {
    let mut redis = RedisServer::with("save \"\"\nrequirepass right\n");
    redis.kill();
    let mut bus = TestBus::try_start(with_login(&redis, None, Some("wrong"))).await.unwrap();
    redis.revive();
    let text = bus.until(|event| match event {
        BusEvent::Fatal(text) => Some(text),
        _ => None,
    });
    assert!(text.await.contains("redis.password"));
    bus.end().await;
}

#[tokio::test]
async fn a_password_that_is_changed_under_a_working_node_is_trouble_and_not_the_end() {
    let redis = RedisServer::with("save \"\"\nuser anna on >hers ~* &* +@all\n");
    let mut bus = TestBus::start(with_login(&redis, Some("anna"), Some("hers"))).await;
    works(&mut bus).await;
    redis.command(&["ACL", "SETUSER", "anna", "resetpass", ">other"]);
    redis.command(&["CLIENT", "KILL", "USER", "anna"]);
    bus.until_down().await;
    while !bus.bus.health().trouble.is_some_and(|text| text.contains("redis.password")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    redis.command(&["ACL", "SETUSER", "anna", ">hers"]);
    bus.until_up().await;
    works(&mut bus).await;
    bus.end().await;
}

#[tokio::test]
async fn a_refused_subscription_is_the_error_of_its_own_subject() {
    let redis = RedisServer::start();
    redis.command(&[
        "ACL",
        "SETUSER",
        "anna",
        "on",
        ">pw",
        "+@all",
        "~*",
        "resetchannels",
        "&carillon:comments:*",
        "&carillon:content:*",
        "&carillon:probe:*",
        "&carillon:control:*",
    ]);
    let mut bus = TestBus::start(with_login(&redis, Some("anna"), Some("pw"))).await;
    let mut subjects = (0..20).map(|n| subject(&format!("comments:{n}"))).collect::<Vec<_>>();
    subjects.insert(10, subject("projects:1"));
    let results = bus.bus.subscribe(subjects).await;
    for (n, result) in results.into_iter().enumerate() {
        match result {
            Ok(()) => assert_ne!(n, 10),
            Err(BusError::Refused(text)) => assert!(n == 10 && text.starts_with("NOPERM"), "{n}: {text}"),
            Err(other) => panic!("{other}"),
        }
    }
    let twins = tokio::join!(
        bus.bus.subscribe(vec![subject("projects:2")]),
        bus.bus.subscribe(vec![subject("projects:2")])
    );
    assert!(twins.0[0].is_err() && twins.1[0].is_err(), "{twins:?}");
    works(&mut bus).await;
    bus.bus.publish_live(topic("comments:19"), numbered(1)).await.unwrap();
    assert_eq!(bus.deliveries_so_far().await.len(), 1);
    assert!(bus.bus.health().live);
    // What was refused is not wanted any more, so that a new link comes up without it.
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    bus.until_up().await;
    works(&mut bus).await;
    bus.end().await;
}

#[tokio::test]
async fn nodes_that_disagree_about_settings_do_not_start() {
    let redis = RedisServer::start();
    let ours = settings(Some(&redis.url()));
    let first = TestBus::start(ours.clone()).await;
    let other = |change: fn(&mut Settings)| {
        let mut settings = settings(Some(&redis.url()));
        change(&mut settings);
        refused(settings)
    };
    let text = other(|s| s.log_length = 11).await;
    for part in ["log.length is \"10\" there and \"11\" here", "settings.generation above 0", "\"carillon\""]
    {
        assert!(text.contains(part), "{text}");
    }
    assert!(other(|s| s.log_ttl = Duration::from_secs(1)).await.contains("log.ttl_seconds"));
    assert!(other(|s| s.event_bytes = 1).await.contains("limits.event_bytes"));
    let folded = other(|s| s.areas = areas().with_naming(Naming::Folded)).await;
    assert!(folded.contains("auth.fold_subject is \"false\" there and \"true\" here"), "{folded}");
    assert!(other(|s| s.areas = Areas::new(["a"], [], []).unwrap()).await.contains("areas.names"));
    assert!(
        other(|s| s.areas =
            Areas::new(["comments", "notifications", "project-items", "projects", "content"], [], [])
                .unwrap())
        .await
        .contains("areas.private")
    );
    // Another prefix is another site.
    let mut site = settings(Some(&redis.url()));
    (site.prefix, site.log_length) = ("site_2".into(), 11);
    TestBus::start(site).await.end().await;

    // As the sentence says: replaced by hand, and then it starts; the first node goes on.
    let mut longer = ours.clone();
    longer.log_length = 11;
    load(&redis, &redis::library(&longer));
    TestBus::start(longer).await.end().await;
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let mut first = first;
    first.until_down().await;
    first.until_up().await;
    first.end().await;
}

#[tokio::test]
async fn a_newer_library_stays_and_an_older_one_is_replaced() {
    let redis = RedisServer::start();
    let ours = settings(Some(&redis.url()));
    let text = redis::library(&ours);
    let own = text.split_once("local VERSION = ").unwrap().1.split(' ').next().unwrap();
    let version =
        |n: &str| text.replace(&format!("local VERSION = {own} "), &format!("local VERSION = {n} "));
    let loaded = || redis.command(&["FCALL", "carillon_settings", "0"]).lines().nth(1).unwrap().to_owned();
    for (there, then) in [("0", own), ("99", "99")] {
        load(&redis, &version(there));
        assert_eq!(loaded(), there);
        let mut bus = TestBus::start(ours.clone()).await;
        assert_eq!(loaded(), then);
        works(&mut bus).await;
        bus.end().await;
    }
    redis.command(&["FUNCTION", "FLUSH"]);
    load(&redis, "#!lua name=carillon\nredis.register_function('mine', function() return 1 end)");
    let text = refused(ours).await;
    assert!(text.contains("not Carillon's"), "{text}");
}

fn load(redis: &RedisServer, library: &str) {
    let answer = redis.command(&["FUNCTION", "LOAD", "REPLACE", library]);
    assert!(!answer.starts_with("ERR"), "{answer}");
}

/// Answers every command like a server of an old version would.
fn old_server(answers: fn(&str) -> &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while let Some(Ok(line)) = lines.next() {
                    let words = match line.strip_prefix('*') {
                        Some(count) => {
                            (0..count.parse().unwrap()).filter_map(|_| lines.nth(1)?.ok()).collect()
                        }
                        None => vec![line.split(' ').next().unwrap_or_default().to_owned()],
                    };
                    if (&stream).write_all(answers(&words[0].to_uppercase()).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn redis_before_7_is_refused() {
    let six = old_server(|command| match command {
        "HELLO" => "%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n",
        "PING" => "+PONG\r\n",
        "CLIENT" => ":1\r\n",
        "INFO" => "$37\r\nredis_version:6.2.14\r\nrole:master\r\n\r\n\r\n",
        _ => "-ERR unknown command\r\n",
    });
    let five = old_server(|_| "-ERR unknown command `HELLO`, with args beginning with: `3`,\r\n");
    for (port, version) in [(six, "6.2.14"), (five, "older than 6")] {
        let text = refused(settings(Some(&format!("redis://127.0.0.1:{port}")))).await;
        assert!(text.contains("Redis 7.0") && text.contains(version), "{text}");
    }
}

#[tokio::test]
async fn tls_is_checked_in_both_directions() {
    let (ours, theirs) = (certificates(), certificates());
    let redis = RedisServer::with_tls(ours.path());
    let url = format!("rediss://127.0.0.1:{}", redis.port());
    let with = |ca: Option<&std::path::Path>, client: bool| {
        let mut settings = settings(Some(&url));
        let target = settings.redis.as_mut().unwrap();
        target.tls_ca = ca.map(|ca| ca.join("ca.pem"));
        if client {
            target.tls_cert = ca.map(|ca| ca.join("client.pem"));
            target.tls_key = ca.map(|ca| ca.join("client.key"));
        }
        settings
    };
    for client in [false, true] {
        let mut bus = TestBus::start(with(Some(ours.path()), client)).await;
        works(&mut bus).await;
        bus.end().await;
    }
    // An authority that did not sign it: no link, and the reason.
    let bus = TestBus::try_start(with(Some(theirs.path()), false)).await.unwrap();
    let health = bus.bus.health();
    assert!(!health.live && health.trouble.as_ref().unwrap().contains("ertificate"), "{health:?}");
    bus.end().await;
    let mut missing = with(Some(ours.path()), false);
    missing.redis.as_mut().unwrap().tls_ca = Some("/nowhere/ca.pem".into());
    let text = refused(missing).await;
    assert!(text.contains("redis.tls_ca") && text.contains("/nowhere/ca.pem"), "{text}");
}

#[tokio::test]
async fn the_printed_library_is_what_redis_cli_loads() {
    let redis = RedisServer::start();
    let ours = settings(Some(&redis.url()));
    let mut cli = Command::new("redis-cli")
        .args(["-p", &redis.port().to_string(), "-x", "FUNCTION", "LOAD", "REPLACE"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cli.stdin.take().unwrap().write_all(redis::library(&ours).as_bytes()).unwrap();
    assert_eq!(String::from_utf8(cli.wait_with_output().unwrap().stdout).unwrap().trim(), "carillon");
    let loads = redis.calls("function|load");
    let mut bus = TestBus::start(ours).await;
    works(&mut bus).await;
    assert_eq!(redis.calls("function|load"), loads, "a node does not load what is there");
    bus.end().await;
}
