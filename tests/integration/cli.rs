//! The program as people and scripts meet it: exit codes, standard output for results, one sentence on standard error.

use std::{
    io::Write,
    net::TcpListener,
    process::{Command, Output, Stdio},
    thread,
};

use crate::support::program::taken_out;
use tempfile::NamedTempFile;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn carillon(arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_carillon"))
        .args(arguments)
        .env_clear()
        .envs(taken_out())
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses may not read what it is given.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn success(arguments: &[&str], variables: &[(&str, &str)], input: &str) -> String {
    let output = carillon(arguments, variables, input);
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {complaint}");
    assert_eq!(complaint, "", "{arguments:?}");
    text(&output.stdout)
}

const NONE: (&str, &str) = ("CARILLON__AUTH__MODE", "none");
const TLS: [(&str, &str); 2] =
    [("CARILLON__HTTP__TLS_CERT", "/etc/hostname"), ("CARILLON__HTTP__TLS_KEY", "/etc/hostname")];

/// The exit code, and the sentence, which must be alone.
fn failure(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let output = carillon(arguments, variables, "");
    let complaint = text(&output.stderr);
    assert!(!complaint.contains(SECRET), "{complaint}");
    (output.status.code().unwrap(), complaint)
}

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

#[test]
fn a_token_is_minted_and_shown() {
    let secret = file(&format!("{SECRET}\n"));
    let path = secret.path().to_str().unwrap();
    let mint = [
        "token",
        "mint",
        "--secret-file",
        path,
        "--sub",
        "anna",
        "--topics",
        "comments:42,projects",
        "--ttl",
        "1h",
    ];
    let token = success(&mint, &[], "");
    assert_eq!((token.matches('.').count(), token.lines().count()), (2, 1));
    for (arguments, input) in [
        (vec!["token", "show", "--secret-file", path, token.trim()], ""),
        (vec!["token", "show", "--secret-file", path], token.as_str()),
        (vec!["token", "show", "--secret-file", path, "-"], &format!("Bearer {token}")),
    ] {
        let shown: serde_json::Value = serde_json::from_str(&success(&arguments, &[], input)).unwrap();
        assert_eq!(shown["claims"]["sub"], "anna");
        assert_eq!(shown["claims"]["topics"], serde_json::json!(["comments:42", "projects"]));
        assert_eq!((&shown["header"]["alg"], &shown["good"]), (&"HS256".into(), &true.into()));
    }
    let plain = ["token", "mint", "--secret-file", path, "--sub", "anna", "--ttl", "600"];
    let shown = success(&["token", "show"], &[], &success(&plain, &[], ""));
    let claims = serde_json::from_str::<serde_json::Value>(&shown).unwrap()["claims"].clone();
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 600, "plain seconds");
    let named = ["token", "mint", "--secret-file", path, "--sub", "anna", "--jti", "t-1", "--sid", "s-1"];
    let shown = success(&["token", "show", "--secret-file", path], &[], &success(&named, &[], ""));
    let shown = serde_json::from_str::<serde_json::Value>(&shown).unwrap();
    assert_eq!((&shown["claims"]["jti"], &shown["claims"]["sid"]), (&"t-1".into(), &"s-1".into()));
    assert_eq!(claims.get("jti").or(claims.get("sid")), None, "only where they are asked for");
    let nameless = carillon(&["token", "mint", "--secret-file", path, "--sub", "anna", "--jti", ""], &[], "");
    assert_eq!(nameless.status.code(), Some(2), "{}", text(&nameless.stderr));
    let long = carillon(&["token", "mint", "--secret-file", path, "--sub", "anna", "--ttl", "30d"], &[], "");
    assert!(text(&long.stderr).contains("for 1day only"), "{}", text(&long.stderr));
    let shown = success(&["token", "show", "--secret-file", path], &[], &text(&long.stdout));
    assert!(shown.contains("accepted_until"), "{shown}");
    let other =
        carillon(&["token", "show", "--secret", "another-secret-another-secret-123", token.trim()], &[], "");
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stdout).contains("signature is wrong"));
    assert!(success(&["token", "show", token.trim()], &[], "").contains("not checked"));
}

#[test]
fn a_token_is_minted_as_the_configuration_wants_it() {
    let config = file(
        "[auth]\nmode = \"jwt\"\nissuer = [\"cms\"]\naudience = \"carillon\"\nalgorithms = [\"HS512\"]\n",
    );
    let variables =
        [("CARILLON_CONFIG", config.path().to_str().unwrap()), ("CARILLON__AUTH__SECRET", SECRET)];
    let token = success(&["token", "mint", "--sub", "anna"], &variables, "");
    let shown: serde_json::Value =
        serde_json::from_str(&success(&["token", "show"], &variables, &token)).unwrap();
    assert_eq!(shown["header"]["alg"], "HS512");
    assert_eq!((&shown["claims"]["iss"], &shown["claims"]["aud"]), (&"cms".into(), &"carillon".into()));
    assert!(shown["claims"].get("topics").is_none(), "auth.default_topics must be able to count");
    assert_eq!(shown["good"], true);
}

#[test]
fn wrong_usage_is_2_and_failure_is_1() {
    for arguments in [
        &[][..],
        &["serv"],
        &["token", "mint"],
        &["token", "mint", "--sub", ""],
        &["token", "mint", "--sub", "anna"],
        &["token", "mint", "--sub", "anna", "--secret", SECRET, "--ttl", "soon"],
        &["token", "show", "not-a-token"],
        &["config", "sho"],
        &["tail"],
        &["completions", "tcsh-or-so"],
    ] {
        let (code, complaint) = failure(arguments, &[]);
        assert_eq!(code, 2, "{arguments:?}: {complaint}");
        assert!(!complaint.is_empty(), "{arguments:?}");
        // Without any argument the help is the answer.
        if !arguments.is_empty() {
            assert!(complaint.starts_with("carillon: ") && complaint.lines().count() == 1, "{complaint}");
        }
    }
    for (arguments, variables, part) in [
        (
            &["token", "mint", "--sub", "anna", "--secret", "short"][..],
            &[][..],
            "auth.secret (--secret) has 5 bytes",
        ),
        (&["config", "check"], &[], "nobody has decided who may connect"),
        (&["config", "check"], &[("CARILLON__AUTH__MODE", "maybe")], "CARILLON__AUTH__MODE"),
        (&["config", "check", "--config", "/nowhere.toml"], &[], "/nowhere.toml cannot be read"),
        (
            &["config", "check"],
            &[("CARILLON__AUTH__MODE", "none"), ("CARILLON__AUTH__DEFAULT_TOPICS", "x:1")],
            "x",
        ),
        (&["config", "check"], &[NONE, ("CARILLON__REDIS__URL", "redis://host:many")], "redis.url"),
        (&["config", "check"], &[NONE, TLS[0], TLS[1]], "/etc/hostname"),
        (&["serve"], &[NONE, ("CARILLON__HTTP__LISTEN", "192.0.2.1:1")], "this machine has no such address"),
        // A port of its own for the other listener: where another `dev` has taken the usual one, it says so in a second line.
        (&["dev", "--listen", "192.0.2.1:1", "--internal", "127.0.0.1:0"], &[], "with --listen"),
        (&["health", "--url", "http://127.0.0.1:1"], &[], "the node does not work"),
    ] {
        let (code, complaint) = failure(arguments, variables);
        assert_eq!(code, 1, "{arguments:?}: {complaint}");
        assert!(complaint.starts_with("carillon: ") && complaint.contains(part), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}

#[test]
fn the_configuration_is_printed_checked_and_shown() {
    let defaults = success(&["config", "default"], &[], "");
    let config = file(&defaults.replace("mode = \"\"", "mode = \"jwt\""));
    let variables =
        [("CARILLON_CONFIG", config.path().to_str().unwrap()), ("CARILLON__AUTH__SECRET", SECRET)];
    let verdict = success(&["config", "check"], &variables, "");
    assert!(verdict.starts_with("good") && !verdict.contains(SECRET), "{verdict}");
    let shown = success(&["config", "show"], &variables, "");
    assert!(shown.contains("secret = \"***\" # environment variable CARILLON__AUTH__SECRET"), "{shown}");
    assert!(!shown.contains(SECRET));
    success(&["config", "show"], &[], "");
}

/// Traces that never come would be looked for in the wrong place.
#[cfg(not(feature = "otlp"))]
#[test]
fn a_build_without_traces_refuses_a_configuration_that_wants_them() {
    let variables =
        [("CARILLON__AUTH__MODE", "none"), ("CARILLON__TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:4318")];
    for command in [&["config", "check"][..], &["serve"]] {
        let (code, error) = failure(command, &variables);
        assert_eq!(code, 1);
        assert!(error.contains("telemetry.otlp_endpoint") && error.contains("--features full"), "{error}");
    }
}

#[test]
fn completions_and_help_exist() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(success(&["completions", shell], &[], "").contains("redis-function"), "{shell}");
    }
    let version = success(&["--version"], &[], "");
    assert!(version.starts_with(concat!("carillon ", env!("CARGO_PKG_VERSION"))), "{version}");
    for (part, present) in [("jemalloc", cfg!(feature = "jemalloc")), ("OTLP traces", cfg!(feature = "otlp"))]
    {
        let named: Vec<_> = version.lines().filter(|line| line.contains(part)).collect();
        let word = if present { "with: " } else { "without: " };
        assert!(named.len() == 1 && named[0].starts_with(word), "{part}: {version}");
    }
    for command in
        ["serve", "dev", "publish", "tail", "token", "config", "redis-function", "health", "doctor", "bench"]
    {
        let help = success(&[command, "--help"], &[], "");
        assert!(help.contains("Usage: carillon") && help.contains("Example"), "{command}");
    }
}

#[test]
fn health_asks_the_internal_listener() {
    for (answer, code) in [("200 OK", 0), ("503 Service Unavailable", 1)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = std::io::Read::read(&mut socket, &mut request).unwrap();
            let head = format!("HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
            socket.write_all(head.as_bytes()).unwrap();
            text(&request[..length])
        });
        let any = format!("0.0.0.0:{}", address.port());
        let output = carillon(&["health"], &[("CARILLON__INTERNAL__LISTEN", &any)], "");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(server.join().unwrap().starts_with("GET /healthz HTTP/1.1"));
    }
}
