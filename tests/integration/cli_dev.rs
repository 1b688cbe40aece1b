//! `carillon dev` and what works beside it without an option: `publish` and `tail` of the same user.

use std::{
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::support::program::taken_out;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);

/// A command of a user whose files are in `home`, and who has configured nothing.
pub(crate) fn carillon(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.args(arguments).env_clear().envs(taken_out()).env("XDG_RUNTIME_DIR", home).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A running command; it ends with the test.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Reads a stream of it, line by line, up to one that holds `word`.
    fn lines_until(stream: impl Read, word: &str) -> Vec<String> {
        let (deadline, mut lines) = (Instant::now() + DEADLINE, Vec::new());
        for line in BufReader::new(stream).lines() {
            lines.push(line.unwrap());
            if lines.last().unwrap().contains(word) {
                return lines;
            }
            assert!(Instant::now() < deadline, "no {word:?}: {lines:?}");
        }
        panic!("it ended without {word:?}: {lines:?}");
    }
}

/// Starts `carillon dev`, and waits for the end of what it prints first.
pub(crate) fn dev(home: &Path, arguments: &[&str]) -> (Running, Vec<String>) {
    let mut child = carillon(home, &[&["dev"], arguments].concat()).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    let running = Running(child);
    let lines = Running::lines_until(out, "Ctrl-C");
    (running, lines)
}

pub(crate) fn address_after(lines: &[String], label: &str) -> SocketAddr {
    let line =
        lines.iter().find(|line| line.contains(label)).unwrap_or_else(|| panic!("no {label}: {lines:?}"));
    line.split("http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap()
}

pub(crate) const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0"];

#[test]
fn publish_and_tail_find_it_as_long_as_it_runs() {
    let home = TempDir::new().unwrap();
    let (node, lines) = dev(home.path(), &FREE);
    let internal = address_after(&lines, "Watch the node");
    assert!(!lines.iter().any(|line| line.contains("PUBLISH_TOKEN")), "no secret is printed: {lines:?}");

    let mut tail = carillon(home.path(), &["tail", "comments:42", "--count", "1"]).spawn().unwrap();
    let stderr = tail.stderr.take().unwrap();
    let mut tail = Running(tail);
    let heard = Running::lines_until(stderr, "following comments:42");
    assert!(heard.iter().any(|line| line.contains("using the running `carillon dev`")), "{heard:?}");

    let publish = ["publish", "comments:42", r#"{"type":"comment.created"}"#];
    let published = carillon(home.path(), &publish).output().unwrap();
    assert!(published.status.success(), "{}", said(&published));
    assert!(said(&published).contains(&internal.to_string()), "which node is said: {}", said(&published));
    let mut event = String::new();
    tail.0.stdout.take().unwrap().read_to_string(&mut event).unwrap();
    assert!(event.contains("comment.created"), "{event}");

    let elsewhere = TempDir::new().unwrap();
    let other = carillon(elsewhere.path(), &publish).output().unwrap();
    assert!(!said(&other).contains("carillon dev"), "another user does not find it: {}", said(&other));
    let configured =
        carillon(home.path(), &publish).env("CARILLON__INTERNAL__LISTEN", "127.0.0.1:1").output();
    let configured = configured.unwrap();
    assert!(
        !configured.status.success() && said(&configured).contains("127.0.0.1:1"),
        "{}",
        said(&configured)
    );

    // Killed, it has no time to tidy up.
    drop(node);
    let late = carillon(home.path(), &publish).output().unwrap();
    assert!(!said(&late).contains(&internal.to_string()), "a dead node is not used: {}", said(&late));
}

#[test]
fn a_taken_port_is_no_obstacle_and_the_bare_address_leads_to_the_demo() {
    // Both standard ports are taken, by this test or by somebody else.
    let _taken = ["127.0.0.1:8080", "127.0.0.1:9090"].map(TcpListener::bind);
    let home = TempDir::new().unwrap();
    let (mut node, lines) = dev(home.path(), &[]);
    let public = address_after(&lines, "Open the demo");
    assert!(public.port() > 8080, "{public}");
    let found = Running::lines_until(node.0.stderr.take().unwrap(), "so internal.listen is");
    assert!(found.iter().any(|line| line.contains("port 8080 is taken, so http.listen is")), "{found:?}");
    let mut socket = std::net::TcpStream::connect(public).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {public}\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut socket, request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 307") && answer.contains("location: /demo/"), "{answer}");
}

#[test]
fn a_chosen_port_that_is_taken_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let home = TempDir::new().unwrap();
    let output = carillon(home.path(), &["dev", "--listen", &address]).output().unwrap();
    assert!(!output.status.success() && said(&output).contains(&address), "{}", said(&output));
}

#[test]
fn the_browser_is_opened_on_the_demo_where_one_is_wanted() {
    let home = TempDir::new().unwrap();
    let (programs, opened) = (home.path().join("bin"), home.path().join("opened"));
    std::fs::create_dir(&programs).unwrap();
    let opener = programs.join("xdg-open");
    std::fs::write(&opener, format!("#!/bin/sh\nprintf %s \"$1\" >{}\n", opened.display())).unwrap();
    std::fs::set_permissions(&opener, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = carillon(home.path(), &[&["dev", "--open"][..], &FREE].concat());
    let mut child = command.env("PATH", &programs).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    let _node = Running(child);
    let public = address_after(&Running::lines_until(out, "Ctrl-C"), "Open the demo");
    let deadline = Instant::now() + DEADLINE;
    loop {
        match std::fs::read_to_string(&opened) {
            Ok(url) if !url.is_empty() => return assert_eq!(url, format!("http://{public}/demo/")),
            _ => assert!(Instant::now() < deadline, "nothing was opened"),
        }
        std::thread::yield_now();
    }
}
