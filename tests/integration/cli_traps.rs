//! Mistakes that people make at the command line, and what they are told: what happened, where, and what to do.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::support::{
    node::{Node, token},
    program::taken_out,
    redis::{RedisServer, free_port},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_carillon");
const NONE: (&str, &str) = ("CARILLON__AUTH__MODE", "none");

fn carillon(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments)
        .env_clear()
        .envs(taken_out())
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    command.output().unwrap()
}

/// Exit code, standard output, standard error.
fn ran(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let output = carillon(arguments, variables);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// The same, while nodes of this test run on its own runtime.
async fn ran_beside(arguments: Vec<String>) -> (i32, String, String) {
    let run = move || ran(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn a_misspelt_variable_is_named_with_its_right_spelling() {
    for wrong in
        ["CARILLON_HTTP_LISTEN", "CARILLON_HTTP__LISTEN", "CARILLON__HTTP_LISTEN", "carillon__http__listen"]
    {
        let (code, _, error) = ran(&["config", "check"], &[NONE, (wrong, "127.0.0.1:8000")]);
        assert_eq!(code, 1, "{wrong}: {error}");
        assert!(error.contains(wrong) && error.contains("write CARILLON__HTTP__LISTEN"), "{wrong}: {error}");
    }
    let others = [NONE, ("CARILLON_TAG", "x"), ("CARILLON_PORT", "1"), ("MY_CARILLON__HTTP__LISTEN", "x")];
    assert_eq!(ran(&["config", "check"], &others).0, 0, "other programs' variables are theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_says_which_area_is_unknown_and_what_it_follows() {
    let node = Node::start(&[]).await;
    let mut good = NamedTempFile::new().unwrap();
    write!(good, "{}", token("anna", &["*"])).unwrap();
    let with = |topics: &str| {
        let place = good.path().display();
        words(&format!("tail {topics} --url http://{}/realtime --token-file {place}", node.public))
    };
    let (code, _, error) = ran_beside(with("nope:1")).await;
    assert!(code == 1 && error.contains("no area nope"), "{error}");

    let mut tail = Command::new(PROGRAM);
    let mut tail = tail
        .args(with("comments:42 nope:1"))
        .env_clear()
        .envs(taken_out())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(tail.stderr.take().unwrap());
    let read = move || {
        let lines = stderr.lines().map_while(Result::ok);
        let mut lines = lines.skip_while(|line| !line.contains("following"));
        lines.next()
    };
    let line = tokio::task::spawn_blocking(read).await.unwrap();
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert_eq!(line.as_deref(), Some("carillon: following comments:42"));
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_at_the_public_listener_says_where_events_are_taken() {
    let node = Node::start(&[]).await;
    let url = format!("http://{}", node.public);
    let arguments = ["publish", "comments:1", r#"{"type":"a.b"}"#, "--url", &url].map(str::to_owned);
    let (code, _, error) = ran_beside(arguments.to_vec()).await;
    assert!(code == 1 && error.contains("internal listener") && error.contains("internal.listen"), "{error}");
}

#[test]
fn what_is_no_token_is_said_in_plain_words() {
    for (token, why) in [("xyz", "it has no dots"), ("a.b", "only one dot"), ("a.b.c.d", "it has 3 dots")] {
        let (code, _, error) = ran(&["token", "show", token], &[]);
        assert!(code == 2 && error.contains(why) && error.contains("eyJ"), "{token}: {error}");
    }
}

/// `script` (util-linux) gives the program a terminal.
fn first_log_line_on_a_terminal(variables: &[(&str, &str)]) -> String {
    let listen = "--internal";
    let run = format!("exec {PROGRAM} serve");
    let mut command = Command::new("script");
    command
        .args(["-qfec", &run, "/dev/null"])
        .env_clear()
        .envs(taken_out())
        .env("PATH", "/usr/bin:/bin")
        .env("SHELL", "/bin/sh");
    command.env("CARILLON__HTTP__LISTEN", "127.0.0.1:0").env("CARILLON__INTERNAL__LISTEN", "127.0.0.1:0");
    command.envs([NONE]).envs(variables.iter().copied());
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.contains("redis.url"));
    // `script` passes this on; killed by force, it would leave the node running.
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    child.wait().unwrap();
    line.unwrap_or_else(|| panic!("no warning about redis.url ({listen})"))
}

#[test]
fn serve_without_redis_warns_in_colour_only_where_colour_is_wanted() {
    let line = first_log_line_on_a_terminal(&[("TERM", "xterm")]);
    assert!(line.contains("WARN") && line.contains("memory") && line.contains('\u{1b}'), "{line:?}");
    for plain in [&[("NO_COLOR", "1"), ("TERM", "xterm")][..], &[("TERM", "dumb")]] {
        let line = first_log_line_on_a_terminal(plain);
        assert!(line.contains("WARN") && !line.contains('\u{1b}'), "{plain:?}: {line:?}");
    }
}

#[test]
fn programs_are_answered_in_json() {
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| panic!("no JSON: {text}"));
    let url = format!("http://127.0.0.1:{}", free_port());
    let (code, health, _) = ran(&["health", "--json", "--url", &url], &[]);
    assert_eq!(
        (code, &json(&health)["ok"], &json(&health)["status"]),
        (1, &Value::Bool(false), &Value::Null)
    );

    let secret = "0123456789abcdef0123456789abcdef";
    let variables = [NONE, ("CARILLON__AUTH__SECRET", secret), ("CARILLON__AREAS__NAMES", "a,b")];
    let (_, shown, error) = ran(&["config", "show", "--json"], &variables[..2]);
    assert!(!shown.contains(secret) && !error.contains(secret));
    let shown = json(&ran(&["config", "show", "--json"], &[NONE]).1);
    assert_eq!(shown["auth.mode"]["value"], "none");
    assert_eq!(shown["auth.mode"]["source"], "environment variable CARILLON__AUTH__MODE");
    assert_eq!(shown["http.listen"]["source"], "default");
    assert!(shown["areas.names"]["value"].is_array(), "{shown}");

    let minted = ran(&["token", "mint", "--secret", secret, "--sub", "anna"], &[]).1;
    let (_, shown, _) = ran(&["token", "show", "--json", "--secret", secret, minted.trim()], &[]);
    assert_eq!(shown.lines().count(), 1);
    assert_eq!((&json(&shown)["claims"]["sub"], &json(&shown)["good"]), (&"anna".into(), &Value::Bool(true)));
}

#[test]
fn each_command_has_a_manual_page() {
    for words in [&["man"][..], &["man", "publish"], &["man", "config", "check"]] {
        let (code, page, error) = ran(words, &[]);
        assert!(
            code == 0 && page.contains(".TH carillon") && page.contains("SYNOPSIS"),
            "{words:?}: {error}{page}"
        );
    }
    let (code, _, error) = ran(&["man", "nope"], &[]);
    assert!(code == 2 && error.contains("nope") && error.contains("publish"), "{error}");
}

#[test]
fn the_default_configuration_needs_one_decision() {
    let mut file = NamedTempFile::new().unwrap();
    let default = ran(&["config", "default"], &[]).1;
    write!(file, "{default}").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let (code, _, error) = ran(&["config", "check", "--config", &path], &[]);
    assert!(code == 1 && error.contains("auth.mode is not set"), "{error}");
    let line =
        default.lines().position(|line| line.contains("FILL THIS IN")).expect("the decision is marked");
    assert!(default.lines().skip(line).take(4).any(|line| line == "mode = \"\""), "{default}");
    std::fs::write(&path, default.replace("mode = \"\"", "mode = \"none\"")).unwrap();
    let (code, good, error) = ran(&["config", "check", "--config", &path], &[]);
    assert!(code == 0 && good.starts_with("good"), "{error}");
}

#[test]
fn the_check_asks_redis_unless_it_is_told_not_to() {
    let away = format!("redis://127.0.0.1:{}", free_port());
    let redis = RedisServer::with("requirepass right\n");
    let locked = redis.url();
    for (url, word) in [(&away, "127.0.0.1"), (&locked, "password")] {
        let variables = [NONE, ("CARILLON__REDIS__URL", url.as_str())];
        let (code, said, error) = ran(&["config", "check"], &variables);
        assert!(code == 1 && said.is_empty() && error.contains(word), "{url}: {said}{error}");
        assert!(error.contains("--offline"), "{error}");
        let (code, said, error) = ran(&["config", "check", "--offline"], &variables);
        assert!(code == 0 && said.starts_with("good"), "{url}: {error}");
    }
    let open = RedisServer::start();
    let (code, said, error) = ran(&["config", "check"], &[NONE, ("CARILLON__REDIS__URL", &open.url())]);
    assert!(code == 0 && said.starts_with("good"), "{error}");
}

#[test]
fn a_door_that_stands_open_is_said_by_the_check_and_by_a_node() {
    let same = "s".repeat(40);
    let open = [
        ("CARILLON__HTTP__TRUSTED_PROXIES", "0.0.0.0/0"),
        ("CARILLON__DEMO__ENABLED", "true"),
        ("CARILLON__INTERNAL__PUBLISH_TOKEN", same.as_str()),
        ("CARILLON__HTTP__LISTEN", "127.0.0.1:0"),
        ("CARILLON__INTERNAL__LISTEN", "127.0.0.1:0"),
    ];
    let always = ["http.trusted_proxies", "demo.enabled", "internal.publish_token"];
    let url = "http://192.0.2.1/path";
    let modes: [(&[_], &str); 4] = [
        (&[NONE], "auth.mode"),
        (&[("CARILLON__AUTH__MODE", "callback"), ("CARILLON__AUTH__CALLBACK_URL", url)], "auth.callback_url"),
        (&[("CARILLON__AUTH__MODE", "jwt"), ("CARILLON__AUTH__JWKS", url)], "auth.jwks"),
        (&[("CARILLON__AUTH__MODE", "jwt"), ("CARILLON__AUTH__SECRET", same.as_str())], "auth.secret"),
    ];
    for (mode, key) in modes {
        let variables = [mode, &open].concat();
        let (code, said, error) = ran(&["config", "check"], &variables);
        assert!(code == 0 && said.starts_with("good"), "{said}{error}");
        let named = |line: &str, key: &str| line.contains(&format!("{key} (environment variable "));
        for key in always.into_iter().chain([key]) {
            assert_eq!(error.lines().filter(|line| named(line, key)).count(), 1, "{key}: {error}");
        }
        assert_eq!(error.lines().count(), 4, "{error}");
        assert!(!error.contains(&same), "{error}");

        let mut node = Command::new(env!("CARGO_BIN_EXE_carillon"));
        let mut node = node
            .arg("serve")
            .env_clear()
            .envs(taken_out())
            .envs(variables)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut missing: Vec<_> = always.into_iter().chain([key]).collect();
        for line in BufReader::new(node.stderr.take().unwrap()).lines().map_while(Result::ok) {
            missing.retain(|key| !(line.contains("WARN") && named(&line, key)));
            if missing.is_empty() || line.contains("draining") {
                break;
            }
        }
        node.kill().unwrap();
        node.wait().unwrap();
        assert!(missing.is_empty(), "not said: {missing:?}");
    }
}

/// The commands that a help text lists, with those below them.
fn commands(of: &[&str]) -> Vec<Vec<String>> {
    let (_, help, _) = ran(&[of, &["--help"]].concat(), &[]);
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Names stand behind two blanks, the rest of a long description behind more.
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !["", "help"].contains(name));
    let mut all = Vec::new();
    for name in names {
        let path = [of, &[name]].concat();
        all.extend(commands(&path));
        all.push(path.iter().map(ToString::to_string).collect());
    }
    all
}

/// A window of 100 columns and 42 rows, as on a laptop.
#[test]
fn every_help_text_fits_one_screen() {
    let all = commands(&[]);
    assert!(all.len() > 12, "the commands are read from the help: {all:?}");
    for path in std::iter::once(Vec::new()).chain(all) {
        let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let (code, help, _) = ran(&arguments, &[("COLUMNS", "100")]);
        assert_eq!(code, 0, "{arguments:?}");
        assert!(help.lines().count() <= 42, "{arguments:?}: {} lines\n{help}", help.lines().count());
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{arguments:?} is too wide\n{help}");
    }
}
