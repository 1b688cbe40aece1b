//! Getting into Redis, however it is set up: passwords, sentinels, names in certificates; and the sentences where not.

use std::{fs, time::Duration};

use crate::support::{
    bus::{TestBus, numbered, settings, topic},
    cluster::RedisCluster,
    redis::{RedisServer, certificates_for, until},
};
use carillon::bus::{Settings, redis::Target};

async fn works(bus: &mut TestBus) {
    bus.follow(&["comments:1"]).await;
    let id = bus.bus.publish(topic("comments:1"), numbered(7)).await.unwrap();
    bus.recorded("comments:1", id, &numbered(7)).await;
}

fn at(url: &str, change: impl FnOnce(&mut Target)) -> Settings {
    let mut settings = settings(Some(url));
    change(settings.redis.as_mut().unwrap());
    settings
}

/// It works with these settings.
async fn enters(settings: Settings) {
    let mut bus = TestBus::start(settings).await;
    works(&mut bus).await;
    bus.end().await;
}

/// The sentence with which a start is refused.
async fn refused(settings: Settings) -> String {
    TestBus::try_start(settings).await.err().expect("it started").to_string()
}

fn user(redis: &RedisServer, password: &str) {
    let rule = format!(">{password}");
    let answer = redis.command(&["ACL", "SETUSER", "anna", "reset", "on", &rule, "~*", "&*", "+@all"]);
    assert_eq!(answer.trim(), "OK");
}

#[tokio::test]
async fn any_password_is_taken_as_it_is() {
    let redis = RedisServer::start();
    let passwords = [
        "two words",
        " at both ends ",
        "tab\tin it",
        "\"quoted\"",
        "it's",
        "100%25 of %s",
        "a\\b",
        "schlüssel🔑",
        "#:@/?&=",
        "line\r\nbreak",
    ];
    for password in passwords {
        user(&redis, password);
        enters(at(&redis.url(), |target| {
            target.username = Some("anna".into());
            target.password = Some(password.into());
        }))
        .await;
    }
    redis.command(&["ACL", "SETUSER", "anna", "reset", "on", "nopass", "~*", "&*", "+@all"]);
    enters(at(&redis.url(), |target| target.username = Some("anna".into()))).await;
}

#[tokio::test]
async fn a_password_is_read_from_its_file_with_every_new_link() {
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    user(&redis, "the first");
    fs::write(&file, "the first\n").unwrap();
    let mut bus = TestBus::start(at(&redis.url(), |target| {
        target.username = Some("anna".into());
        target.password_file = Some(file.clone());
    }))
    .await;
    works(&mut bus).await;
    user(&redis, "the second");
    fs::write(&file, "the second\r\n").unwrap();
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    bus.until_up().await;
    works(&mut bus).await;
    bus.end().await;
    fs::write(&file, "\u{feff}the second").unwrap();
    let text = refused(at(&redis.url(), |target| target.password_file = Some(file.clone()))).await;
    assert!(text.contains("redis.password_file") && text.contains("byte-order mark"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_redis_is_given_while_it_runs_is_missed_aloud_until_the_file_has_it() {
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "the first").unwrap();
    redis.command(&["CONFIG", "SET", "requirepass", "the first"]);
    let mut bus = TestBus::start(at(&redis.url(), |target| target.password_file = Some(file.clone()))).await;
    works(&mut bus).await;
    let admin = |password: &str, args: &[&str]| {
        let port = redis.port().to_string();
        let login = ["-a", password, "--no-auth-warning", "-p", &port];
        let output = std::process::Command::new("redis-cli").args(login).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!said.contains("NOAUTH") && !said.contains("WRONGPASS"), "{said}");
    };
    // Open connections stay; new ones are refused.
    admin("the first", &["CONFIG", "SET", "requirepass", "a new one"]);
    works(&mut bus).await;
    admin("a new one", &["CLIENT", "KILL", "TYPE", "pubsub"]);
    bus.until_down().await;
    let is_named = || bus.bus.health().trouble.is_some_and(|why| why.contains("redis.password"));
    until("the password to be named", is_named);
    fs::write(&file, "a new one\n").unwrap();
    bus.until_up().await;
    works(&mut bus).await;
    bus.end().await;
}

#[tokio::test]
async fn redis_is_reached_by_ipv6_and_in_any_database() {
    let redis = RedisServer::with("save \"\"\nbind 127.0.0.1 ::1\n");
    for url in [
        format!("redis://[::1]:{}", redis.port()),
        format!("redis://[0:0:0:0:0:0:0:1]:{}", redis.port()),
        format!("redis://localhost:{}", redis.port()),
        format!("redis://127.0.0.1:{}/3", redis.port()),
    ] {
        enters(settings(Some(&url))).await;
    }
    // Where there is no such database, that is the reason.
    let bus = TestBus::try_start(settings(Some(&format!("redis://127.0.0.1:{}/99", redis.port())))).await;
    let text = match bus {
        Ok(bus) => bus.bus.health().trouble.unwrap_or_default(),
        Err(error) => error.to_string(),
    };
    assert!(text.contains("no database of that number") && text.contains("redis.url"), "{text}");
}

#[tokio::test]
async fn certificates_are_read_from_their_files_with_every_new_link() {
    let (first, second) = (certificates_for("IP:127.0.0.1"), certificates_for("IP:127.0.0.1"));
    let dir = tempfile::tempdir().unwrap();
    let put = |from: &tempfile::TempDir| {
        for file in fs::read_dir(from.path()).unwrap().map(|file| file.unwrap().path()) {
            fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
        }
    };
    put(&first);
    let place = dir.path().display();
    let lines = format!(
        "port 0\ntls-port {{port}}\nsave \"\"\ntls-cert-file {place}/server.pem\ntls-key-file {place}/server.key\n\
         tls-ca-cert-file {place}/ca.pem\ntls-auth-clients yes\n"
    );
    let mut redis = RedisServer::with_tls_lines(&lines);
    let url = format!("rediss://127.0.0.1:{}", redis.port());
    let mut bus = TestBus::start(at(&url, |target| {
        target.tls_ca = Some(dir.path().join("ca.pem"));
        target.tls_cert = Some(dir.path().join("client.pem"));
        target.tls_key = Some(dir.path().join("client.key"));
    }))
    .await;
    works(&mut bus).await;
    // Another authority, and certificates that it has signed.
    put(&second);
    redis.kill();
    redis.revive();
    bus.until_up().await;
    works(&mut bus).await;
    bus.end().await;
}

/// A master and a sentinel that has seen it, with these lines each.
fn watched(master_lines: &str, sentinel_lines: &str) -> (RedisServer, RedisServer, String) {
    let master = RedisServer::with(&format!("save \"\"\n{master_lines}"));
    let sentinel = RedisServer::sentinel_with(master.port(), 1, sentinel_lines);
    let url = format!("redis-sentinel://127.0.0.1:{}/mymaster", sentinel.port());
    (master, sentinel, url)
}

#[tokio::test]
async fn sentinels_have_no_password_the_same_or_their_own() {
    let same = [
        "requirepass \"the same\"\n",
        "requirepass \"the same\"\nsentinel auth-pass mymaster \"the same\"\n",
    ];
    let (_master, _sentinel, url) = watched(same[0], same[1]);
    enters(at(&url, |target| target.password = Some("the same".into()))).await;

    let (_master, _sentinel, url) = watched(same[0], "sentinel auth-pass mymaster \"the same\"\n");
    enters(at(&url, |target| target.password = Some("the same".into()))).await;

    let own = "user bo on >own ~* &* +@all\nuser default off\nsentinel auth-pass mymaster \"the same\"\n";
    let (_master, sentinel, url) = watched(same[0], own);
    let bo = |password: &str| {
        at(&url, |target| {
            target.password = Some("the same".into());
            target.sentinel_username = Some("bo".into());
            target.sentinel_password = Some(password.into());
        })
    };
    enters(bo("own")).await;
    let text = refused(bo("wrong")).await;
    let place = format!("the sentinel at 127.0.0.1:{}", sentinel.port());
    assert!(text.contains(&place) && text.contains("redis.sentinel_password"), "{text}");
    let text = refused(at(&url, |_| {})).await;
    assert!(text.contains(&place) && text.contains("redis.sentinel_password"), "{text}");
}

#[tokio::test]
async fn what_sentinels_cannot_tell_is_said_with_their_names() {
    let (master, sentinel, url) = watched("", "");
    let text = refused(settings(Some(&url.replace("mymaster", "other")))).await;
    let place = format!("127.0.0.1:{}", sentinel.port());
    assert!(text.contains(&place) && text.contains("\"other\"") && text.contains("mymaster"), "{text}");
    let redis = format!("127.0.0.1:{}", master.port());
    let text = refused(settings(Some(&format!("redis-sentinel://{redis}/mymaster")))).await;
    assert!(text.contains(&redis) && text.contains("no sentinel"), "{text}");
    // One that knows is enough.
    enters(settings(Some(&format!("redis-sentinel://{redis},{place}/mymaster")))).await;
}

#[tokio::test]
async fn a_cluster_of_one_that_does_not_know_its_name_is_where_it_was_asked() {
    for lines in [
        "",
        "cluster-preferred-endpoint-type unknown-endpoint\n",
        "cluster-preferred-endpoint-type hostname\n",
        "cluster-announce-hostname localhost\ncluster-preferred-endpoint-type hostname\n",
    ] {
        let cluster = tokio::task::spawn_blocking(move || RedisCluster::of_one(lines)).await.unwrap();
        enters(settings(Some(&cluster.url()))).await;
        enters(settings(Some(&cluster.url().replace("127.0.0.1", "localhost")))).await;
    }
}

#[tokio::test]
async fn certificates_are_checked_by_the_name_that_is_configured() {
    let certificates = certificates_for("DNS:redis.example");
    let redis = RedisServer::with_tls(certificates.path());
    let url = format!("rediss://127.0.0.1:{}", redis.port());
    let with = |name: Option<&str>| {
        at(&url, |target| {
            target.tls_ca = Some(certificates.path().join("ca.pem"));
            target.tls_server_name = name.map(Into::into);
        })
    };
    enters(with(Some("redis.example"))).await;
    for name in [None, Some("other.example")] {
        let bus = TestBus::try_start(with(name)).await.unwrap();
        let trouble = bus.bus.health().trouble.unwrap();
        assert!(trouble.contains("certificate") && trouble.contains("redis.tls_server_name"), "{trouble}");
        assert!(!trouble.contains('{') && !trouble.contains("NotValidForName"), "{trouble}");
        bus.end().await;
    }
}

#[tokio::test]
async fn a_cluster_that_announces_addresses_is_checked_by_the_name_in_the_url() {
    let certificates = certificates_for("DNS:localhost");
    let dir = certificates.path().display().to_string();
    let tls = format!(
        "port 0\ntls-port {{port}}\ntls-cluster yes\ntls-cert-file {dir}/server.pem\ntls-key-file {dir}/server.key\n\
         tls-ca-cert-file {dir}/ca.pem\ntls-auth-clients no\ncluster-announce-ip 127.0.0.1\n"
    );
    let bus_port = crate::support::redis::free_port();
    let lines = format!(
        "save \"\"\ncluster-enabled yes\ncluster-config-file {{dir}}/nodes.conf\ncluster-port {bus_port}\n{tls}"
    );
    let server = RedisServer::with_tls_lines(&lines);
    let cli = |args: &[&str]| {
        let output = std::process::Command::new("redis-cli")
            .args([
                "--tls",
                "--cacert",
                &format!("{dir}/ca.pem"),
                "-h",
                "localhost",
                "-p",
                &server.port().to_string(),
            ])
            .args(args)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    until("the cluster is whole", || cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    let url = format!("rediss-cluster://localhost:{}", server.port());
    let settings = at(&url, |target| target.tls_ca = Some(certificates.path().join("ca.pem")));
    let mut bus = TestBus::start(Settings { probe_interval: Duration::from_millis(200), ..settings }).await;
    works(&mut bus).await;
    bus.end().await;
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_said_in_words() {
    let bus = TestBus::try_start(settings(Some("redis://redis.does-not-exist.invalid:6379"))).await.unwrap();
    let trouble = bus.bus.health().trouble.unwrap();
    assert!(trouble.contains("redis.does-not-exist.invalid") && !trouble.contains('{'), "{trouble}");
    assert!(trouble.contains("name"), "{trouble}");
    bus.end().await;
}
