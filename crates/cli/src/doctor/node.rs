//! Is there a node behind the address? Its `config`, which everybody may read, and who stands in front of it.

use carillon::protocol::time::now_ms;
use hyper::{StatusCode, header};

use super::{
    clock,
    handshake::Answer,
    hop::Hop,
    net::{Endpoint, NoAnswer, PATIENCE},
    report::Finding,
};

const QUESTION: &str = "node";

/// What was found out before the first session.
pub(super) struct Node {
    pub(super) findings: Vec<Finding>,
    /// Who answers in front of it.
    pub(super) hop: Hop,
    /// Its heartbeat in seconds; `None`: that was not a node.
    pub(super) heartbeat: Option<u64>,
}

/// Asks for `config`.
pub(super) async fn ask(endpoint: &Endpoint) -> Node {
    let response = match endpoint.ask(endpoint.request("/config")).await {
        Ok(response) => response,
        Err(silence) => {
            return Node { findings: vec![silent(&silence, endpoint)], hop: Hop::default(), heartbeat: None };
        }
    };
    let now = now_ms();
    let answer = Answer::read(response).await;
    let hop = Hop::of(&answer.headers);
    let date = answer.headers.get(header::DATE).and_then(|date| date.to_str().ok());
    let findings = vec![config(&answer, endpoint, &hop), clock::compare(date, now)];
    let heartbeat = answer.json["heartbeat"].as_u64().filter(|_| answer.status == StatusCode::OK);
    Node { findings, hop, heartbeat }
}

fn config(answer: &Answer, endpoint: &Endpoint, hop: &Hop) -> Finding {
    let (status, base) = (answer.status, &endpoint.place.base);
    if let (StatusCode::OK, Some(version)) = (status, answer.json["version"].as_str()) {
        let on = ["websocket", "sse", "poll"].into_iter().filter(|name| answer.json[*name] == true);
        let on = on.collect::<Vec<_>>().join(", ");
        let front = if *hop == Hop::Unnamed { String::new() } else { format!(", behind {}", hop.name()) };
        let heartbeat = answer.json["heartbeat"].as_u64().unwrap_or(0);
        return Finding::good(
            QUESTION,
            format!("Carillon {version} answers{front}: {on}; heartbeat {heartbeat} s."),
        );
    }
    if answer.code() == "not-found" {
        return Finding::bad(
            QUESTION,
            format!("A node answers, but it has nothing at {base}/config (404)."),
            format!("Set http.base_path = \"{base}\", or let the proxy pass the path on unchanged."),
        );
    }
    Finding::bad(
        QUESTION,
        format!("{base}/config is answered with {}, and not by a node.", status.as_u16()),
        match status.as_u16() {
            502..=504 => "The proxy reaches no node: see whether nodes run and are ready (carillon health --ready), and \
                          whether the address in the proxy's configuration is theirs (http.listen)."
                .into(),
            // nginx says so when it is spoken to without TLS on a port with.
            400 if !endpoint.place.secure => "If the port expects TLS, write https:// here; else see the log of what answers.".into(),
            _ => format!("Let {} pass {base} and everything below it on to the nodes, unchanged.", hop.name()),
        },
    )
}

fn silent(silence: &NoAnswer, endpoint: &Endpoint) -> Finding {
    let authority = &endpoint.place.authority;
    let (sentence, advice) = match silence {
        NoAnswer::Late => (
            format!(
                "{authority} accepts the connection, but does not answer within {} s.",
                PATIENCE.as_secs()
            ),
            "See whether what listens there is stuck, or waits for a node that does not answer.",
        ),
        NoAnswer::Closed => (
            format!("{authority} closes the connection without an answer."),
            if endpoint.place.secure {
                "See the log of what listens there."
            } else {
                "If the port expects TLS, write https:// here; else see the log of what listens there."
            },
        ),
        NoAnswer::Gibberish => (
            format!("{authority} does not answer in HTTP."),
            if endpoint.place.secure {
                "Correct the port."
            } else {
                "Write https:// here, or correct the port."
            },
        ),
        NoAnswer::Lost(error) => (
            format!("{authority} cannot be reached any more ({error})."),
            "See whether it was stopped just now.",
        ),
    };
    Finding::bad(QUESTION, sentence, advice)
}
