//! What an operator meets: where values come from, what is refused and in which words, and that secrets stay hidden.

use std::{collections::BTreeSet, io::Write, path::Path};

use tempfile::NamedTempFile;

use super::{values::KNOWN, *};

const SECRET: &str = "a-secret-that-must-never-be-printed-anywhere";

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(toml: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let file = file(toml);
    let layers = Layers::new().file(Some(file.path())).variables(variables.iter().copied());
    let shorter =
        |error: ConfigError| error.to_string().replace(&file.path().display().to_string(), "carillon.toml");
    layers.load().map_err(shorter)
}

fn refusal(toml: &str, variables: &[(&str, &str)]) -> String {
    let refusal = load(toml, variables).expect_err("should have been refused");
    assert!(!refusal.contains(SECRET), "{refusal}");
    refusal
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Layers::new().load().unwrap();
    assert_eq!(config.http.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.http.base_path, "/realtime");
    assert_eq!(config.internal.listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.redis.prefix, "carillon");
    assert!(
        config.redis.url.is_none() && config.auth.mode.is_none() && config.auth.default_topics.is_empty()
    );
    assert_eq!(config.areas.names, ["comments", "project-items", "projects", "notifications", "content"]);
    assert_eq!(config.areas.private, ["notifications"]);
    assert!(config.transports.websocket && config.transports.sse && config.transports.poll);
    assert_eq!((config.log.length, config.log.ttl.as_secs()), (1000, 86400));
    assert_eq!((config.limits.topics_per_session, config.resync.refetches_per_second), (64, 200));
    assert_eq!((config.limits.event_bytes, config.limits.message_bytes), (65536, 65536));
    assert_eq!((config.limits.outbox_bytes, config.probe.interval.as_secs()), (262_144, 5));
    assert!(!config.demo.enabled);
}

#[test]
fn every_documented_key_is_read_and_every_key_read_is_documented() {
    let text = [include_str!("sections.rs"), include_str!("listeners.rs"), include_str!("auth.rs")].concat();
    let mut read: BTreeSet<String> = BTreeSet::new();
    for quoted in text.split('"').skip(1).step_by(2) {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let shape = |part: &str| !part.is_empty() && part.bytes().all(fits);
        if quoted.split_once('.').is_some_and(|(section, name)| shape(section) && shape(name)) {
            read.insert(quoted.into());
        }
    }
    let secrets = ["auth.secret", "auth.previous_secret", "internal.publish_token", "redis.password"];
    for key in secrets.iter().chain(&["redis.node_secret", "redis.previous_node_secret"]) {
        read.insert(format!("{key}_file"));
    }
    let documented: BTreeSet<String> = KNOWN.iter().cloned().collect();
    assert_eq!(read, documented);
}

#[test]
fn the_environment_wins_over_the_file_and_the_command_over_both() {
    let toml = "[http]\nlisten = \"127.0.0.1:1\"\nbase_path = \"/a\"\n[limits]\nsessions = 7\n";
    let file = file(toml);
    let layers = Layers::new()
        .file(Some(file.path()))
        .variables([
            ("CARILLON__HTTP__LISTEN", "127.0.0.1:2"),
            ("CARILLON__HTTP__BASE_PATH", "/b"),
            ("PATH", "/bin"),
        ])
        .set("http.base_path", "/c", "--base-path")
        .set_default("limits.sessions", "9", "carillon dev")
        .set_default("limits.event_bytes", "999", "carillon dev");
    let config = layers.load().unwrap();
    assert_eq!(config.http.listen.port(), 2);
    assert_eq!(config.http.base_path, "/c");
    assert_eq!((config.limits.sessions, config.limits.event_bytes), (7, 999));
    assert_eq!(
        config.source("http.listen").unwrap().to_string(),
        "environment variable CARILLON__HTTP__LISTEN"
    );
    assert_eq!(config.source("http.base_path").unwrap().to_string(), "--base-path");
    assert_eq!(config.source("limits.sessions"), Some(&ValueSource::File(file.path().into())));
    assert_eq!(config.source("limits.event_bytes"), Some(&ValueSource::Command("carillon dev")));
    assert_eq!(config.source("log.length"), Some(&ValueSource::Default));
}

#[test]
fn lists_come_as_lists_or_separated_by_commas_and_empty_is_not_set() {
    let toml = "[http]\nallowed_origins = [\"https://CMS.example.com:443/\", \"http://localhost:3000\"]\n";
    let proxies = ("CARILLON__HTTP__TRUSTED_PROXIES", "10.0.0.0/8, 192.168.1.1");
    let config =
        load(toml, &[proxies, ("CARILLON__REDIS__PREFIX", ""), ("CARILLON__AUTH__COOKIE", "")]).unwrap();
    assert_eq!(config.http.allowed_origins, ["https://cms.example.com", "http://localhost:3000"]);
    assert_eq!(config.http.trusted_proxies.len(), 2);
    assert_eq!(config.redis.prefix, "carillon");
    assert!(config.auth.cookie.is_none());
}

#[test]
fn what_nobody_wrote_makes_nothing_wrong() {
    let config = load("", &[("CARILLON__AREAS__NAMES", "comments,projects")]).unwrap();
    assert_eq!((config.areas.names.len(), config.areas.private.len()), (2, 0));
    let text = refusal("[areas]\nnames = [\"comments\"]\nprivate = [\"notifications\"]\n", &[]);
    assert!(text.contains("each must be one of areas.names (comments)"), "{text}");
    let text = refusal("", &[("CARILLON__AREAS__NAMES", "Comments")]);
    assert_eq!(text.lines().count(), 1, "{text}");
    let text = refusal("", &[("CARILLON__AREAS__NAMES", "comments,sources")]);
    assert!(text.contains("areas.names") && text.contains("Choose another"), "{text}");
}

#[test]
fn a_short_publish_token_is_worth_a_warning_and_no_more() {
    let token = |text| load("", &[("CARILLON__INTERNAL__PUBLISH_TOKEN", text)]).unwrap().internal;
    assert!(token("0123456789abcdef").warning().is_none());
    let warning = token("s3cret").warning().unwrap();
    assert!(warning.contains("has 6 bytes") && !warning.contains("s3cret"), "{warning}");
}

#[test]
fn numbers_and_flags_and_passwords_of_digits_survive_the_environment() {
    let config = load(
        "",
        &[
            ("CARILLON__REDIS__PASSWORD", "00123"),
            ("CARILLON__LOG__LENGTH", "50"),
            ("CARILLON__SSE__ENABLED", "false"),
        ],
    )
    .unwrap();
    assert_eq!(config.redis.password.unwrap().expose(), "00123");
    assert_eq!(config.log.length, 50);
    assert!(!config.transports.sse);
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_is_allowed() {
    let toml = "
        [http]\nlisten = \"8080\"\nbase_path = \"realtime\"\nallowed_origins = [\"*\"]\nport = 1\n
        [limits]\nsessions = 0\nevent_bytes = \"many\"\ntopics_per_session = 1.5\n
        [redis]\nprefix = \"Carillon\"\nurl = \"localhost:6379\"\n
        [telemetry]\nlevel = \"loud\"\n
        [areas]\nprivate = [\"inbox\"]\n
        [sse]\nenabled = \"perhaps\"\n
        [web]\nsocket = true\n
        [Log]\nlength = 1\n";
    let variables = [
        ("CARILLON__PROBE__SECONDS", "60"),
        ("CARILLON__REDIS__PASSWRD", SECRET),
        ("CARILLON_REDIS_URL", "redis://x"),
        ("CARILLON__AUTH", SECRET),
        ("CARILLON_SERVICE_HOST", "10.0.0.1"),
    ];
    insta::assert_snapshot!(sorted(&refusal(toml, &variables)));
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn a_section_is_not_a_value_and_a_value_is_not_a_section() {
    assert!(refusal("http = 3\n", &[]).contains("http (carillon.toml) is a section"));
    assert!(refusal("[auth.secret]\nx = 1\n", &[]).contains("unknown key auth.secret.x (carillon.toml)"));
}

#[test]
fn a_broken_file_is_refused_without_quoting_it() {
    let text = refusal(&format!("[auth]\nsecret = \"{SECRET}\n"), &[]);
    assert!(text.contains("carillon.toml") && text.contains("line 2"), "{text}");
    let text = refusal(&format!("[auth]\nsecret = {SECRET}\n"), &[]);
    assert!(text.contains("line 2"), "{text}");
    let missing = Config::load(Some(Path::new("/nowhere/carillon.toml"))).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/carillon.toml cannot be read"), "{missing}");
}

#[test]
fn auth_must_be_decided_and_complete() {
    insta::assert_snapshot!(load("", &[]).unwrap().auth_mode().unwrap_err().to_string());
    for (toml, part) in [
        ("mode = \"jwt\"", "needs one of auth.secret"),
        ("mode = \"password\"", "it must be one of jwt, callback, none"),
        ("mode = \"callback\"", "needs auth.callback_url"),
        ("mode = \"callback\"\ncallback_url = \"cms/who\"", "must be a URL"),
        ("mode = \"jwt\"\nsecret = \"short\"", "has 5 bytes: it must have 32 or more"),
        ("mode = \"jwt\"\nsecret = \"-----BEGIN PUBLIC KEY-----xxxxxxxxxxxxxx\"", "auth.public_key_file"),
        ("mode = \"jwt\"\npublic_key_file = \"/nowhere.pem\"", "/nowhere.pem: it cannot be read"),
        ("mode = \"jwt\"\njwks = \"ftp://x\"", "must be a URL"),
        (
            "mode = \"jwt\"\nsecret = \"0123456789abcdef0123456789abcdef\"\njwks = \"https://x/jwks\"",
            "more than one of auth.secret",
        ),
        (
            "mode = \"jwt\"\nsecret = \"0123456789abcdef0123456789abcdef\"\nalgorithms = [\"RS256\"]",
            "each must be one of HS256, HS384, HS512",
        ),
        ("mode = \"jwt\"\njwks = \"https://x/jwks\"\nalgorithms = [\"HS256\"]", "each must be one of RS256"),
        (
            "mode = \"jwt\"\nsecret = \"0123456789abcdef0123456789abcdef\"\nalgorithms = [\"none\"]",
            "each must be one of HS256, HS384, HS512",
        ),
    ] {
        let text = refusal(&format!("[auth]\n{toml}\n"), &[]);
        assert!(text.contains(part), "{toml}: {text}");
    }
}

#[test]
fn secrets_come_from_files_too_but_not_from_both() {
    let secret = file(&format!("{SECRET}\n"));
    let path = secret.path().display().to_string();
    let config = load(
        "[auth]\nmode = \"jwt\"\n",
        &[
            ("CARILLON__AUTH__SECRET_FILE", path.as_str()),
            ("CARILLON__AUTH__PREVIOUS_SECRET_FILE", &path),
            ("CARILLON__REDIS__PASSWORD_FILE", &path),
            ("CARILLON__INTERNAL__PUBLISH_TOKEN_FILE", &path),
        ],
    )
    .unwrap();
    let AuthMode::Jwt(Jwt { keys: KeySource::Secret { current, previous }, .. }) =
        config.auth_mode().unwrap()
    else {
        panic!("not a shared secret");
    };
    for read in [current, &previous.clone().unwrap(), &config.redis.password.clone().unwrap()] {
        assert_eq!(read.expose(), SECRET);
    }
    assert_eq!(config.internal.publish_token.unwrap().expose(), SECRET);

    let toml = format!("[redis]\npassword = \"{SECRET}\"\npassword_file = \"{path}\"\n");
    assert!(refusal(&toml, &[]).contains("redis.password_file are both set"));
    assert!(refusal("[redis]\npassword_file = \"/nowhere\"\n", &[]).contains("/nowhere: it cannot be read"));

    std::fs::write(&path, "short\n").unwrap();
    let toml = format!("[auth]\nmode = \"jwt\"\nsecret_file = \"{path}\"\n");
    let refused = refusal(&toml, &[]);
    assert!(refused.starts_with("auth.secret_file (carillon.toml"), "{refused}");
    assert!(refused.contains(&format!(" is {path}: that secret has 5 bytes")), "{refused}");
}

#[test]
fn what_is_shown_is_toml_that_means_the_same_and_hides_secrets() {
    let toml = format!(
        "[auth]\nmode = \"jwt\"\nsecret = \"{SECRET}\"\n[redis]\nurl = \"redis://anna:{SECRET}@host:6379/0\"\n\
         password = \"{SECRET}\"\n[limits]\nsessions = 12\n[areas]\nrecorded_only = [\"comments\"]\n\
         [telemetry]\notlp_endpoint = \"https://collector/?key={SECRET}\"\n"
    );
    let variables =
        [("CARILLON__INTERNAL__PUBLISH_TOKEN", SECRET), ("CARILLON__AUTH__PREVIOUS_SECRET", SECRET)];
    let config = load(&toml, &variables).unwrap();
    let shown = config.show();
    assert!(!shown.contains(SECRET) && !format!("{config:?}").contains(SECRET), "{shown}");
    for line in [
        "secret = \"***\" # /",
        "url = \"redis://anna:***@host:6379/0\" # /",
        "publish_token = \"***\" # environment variable CARILLON__INTERNAL__PUBLISH_TOKEN\n",
        "sessions = 12 # /",
        "recorded_only = [\"comments\"] # /",
        "listen = \"0.0.0.0:8080\"\n",
        "previous_secret_file = \"\"\n",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    let again = load(&shown.replace("***", "0123456789abcdef0123456789abcdef"), &[]).unwrap();
    assert_eq!(again.limits.sessions, 12);
    assert_eq!(again.areas.recorded_only, ["comments"]);
    assert!(load(DEFAULT_TOML, &[]).is_ok());
}
