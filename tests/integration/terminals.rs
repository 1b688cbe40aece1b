//! What strangers write reaches no terminal as anything but text: not by a command's answer, not by the log.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::{
    node::{Node, SECRET, within},
    program::taken_out,
};

/// ESC, OSC with BEL, DEL, C1, bidi controls, a separator of lines, and the end of one; between words that are found again.
const EVIL: &str = "an\n\rna\u{1b}[31mRED\u{1b}]0;owned\u{7}\u{7f}\u{9b}31m\u{9d}0;x\u{202e}abc\u{2066}\u{200f}\u{61c}\u{2028}end";
/// Where the publish token is wanted.
const PUBLISHER: &str = "the publish token of the tests";

fn carillon(arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.args(arguments).env_clear().envs(taken_out()).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What was printed holds the stranger's words, and nothing in it acts on a terminal.
fn assert_harmless(what: &str, printed: &str) {
    assert!(printed.contains("RED") && printed.contains("abc"), "{what}: the words are missing: {printed:?}");
    let acts = |c: &char| {
        let bidi = ('\u{2028}'..='\u{202e}').contains(c) || ('\u{2066}'..='\u{2069}').contains(c);
        bidi || "\u{61c}\u{200e}\u{200f}".contains(*c) || c.is_control() && *c != '\n'
    };
    assert_eq!(printed.chars().find(acts), None, "{what}: {printed:?}");
}

/// Both streams of a command that has ended.
fn printed(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

/// A server that answers every request with what a stranger chose, until the test ends.
fn hostile_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut request = [0; 4096];
            let read = socket.read(&mut request).unwrap_or(0);
            let is_config = String::from_utf8_lossy(&request[..read]).contains("/config ");
            let (status, body) = if is_config {
                let config =
                    json!({"websocket": true, "sse": true, "poll": true, "heartbeat": 25, "version": EVIL});
                ("200 OK", config)
            } else {
                ("403 Forbidden", json!({"status": 403, "code": EVIL, "detail": EVIL, "title": EVIL}))
            };
            let body = body.to_string();
            let _ = write!(
                socket,
                "HTTP/1.1 {status}\r\nContent-Type: application/problem+json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}/realtime")
}

#[test]
fn a_hostile_server_writes_nothing_into_the_doctors_terminal() {
    let url = hostile_server();
    for more in [&[][..], &["--json"]] {
        let arguments = [&["doctor", &url, "--idle", "0"], more].concat();
        assert_harmless("doctor", &printed(carillon(&arguments, &[])));
    }
}

#[test]
fn a_strangers_token_is_shown_as_text() {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let header = part(&json!({"alg": "HS256", "kid": EVIL}));
    let token = format!("{header}.{}.AAAA", part(&json!({"sub": EVIL, "topics": [EVIL], "exp": 1})));
    for more in [&[][..], &["--json"]] {
        let arguments = [&["token", "show", &token], more].concat();
        let output = carillon(&arguments, &[]).wait_with_output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert_harmless("token show", &shown);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["claims"]["sub"], EVIL, "it is still JSON that means the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_events_text_is_printed_as_text_by_tail() {
    let node = Node::start(&[]).await;
    let url = format!("http://{}/realtime", node.public);
    let configured = [("CARILLON__AUTH__MODE", "jwt"), ("CARILLON__AUTH__SECRET", SECRET)];
    let mut tail = carillon(&["tail", "comments:1", "--url", &url, "--count", "1"], &configured);
    let errors = tail.stderr.take().unwrap();
    let follows = tokio::task::spawn_blocking(move || {
        BufReader::new(errors).lines().map_while(Result::ok).find(|line| line.contains("following")).unwrap()
    });
    within("tail to follow", follows).await.unwrap();
    let event = json!({"type": "a.b", "data": EVIL});
    node.publish("comments:1", &event).await;
    let ended = tokio::task::spawn_blocking(|| tail.wait_with_output().unwrap());
    let output = within("tail to end", ended).await.unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    assert_eq!(line.lines().count(), 1, "{line:?}");
    assert_harmless("tail", &line);
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["event"]["data"], EVIL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_name_is_text_in_the_log() {
    for format in ["text", "json"] {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (public, internal) = (free(), free());
        let mut node = carillon(
            &["serve"],
            &[
                ("CARILLON__AUTH__MODE", "none"),
                ("CARILLON__HTTP__LISTEN", &public),
                ("CARILLON__INTERNAL__LISTEN", &internal),
                ("CARILLON__INTERNAL__PUBLISH_TOKEN", PUBLISHER),
                ("CARILLON__TELEMETRY__FORMAT", format),
            ],
        );
        let log = BufReader::new(node.stderr.take().unwrap());
        let heard = tokio::task::spawn_blocking(move || {
            log.lines().map_while(Result::ok).find(|line| line.contains("revoked on all nodes")).unwrap()
        });
        // No editor can have such a name, a session of a token can.
        let body = json!({"session": EVIL}).to_string();
        let request = format!(
            "POST /disconnect HTTP/1.1\r\nHost: {internal}\r\nAuthorization: Bearer {PUBLISHER}\r\nContent-Type: \
             application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        within("the order to be taken", async {
            while !is_taken(&internal, &request).await {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        let line = within("the line in the log", heard).await.unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
        assert_harmless(format, &line);
        assert!(line.contains("\\u001b[31mRED"), "{line}");
    }
}

async fn is_taken(address: &str, request: &str) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Ok(mut socket) = tokio::net::TcpStream::connect(address).await else { return false };
    let mut answer = String::new();
    socket.write_all(request.as_bytes()).await.is_ok()
        && socket.read_to_string(&mut answer).await.is_ok()
        && answer.starts_with("HTTP/1.1 2")
}
