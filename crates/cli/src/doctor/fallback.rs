//! The ways without WebSockets: does an SSE stream come through as it is written, does a poll wait as long as it must?

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::{StatusCode, body::Incoming, header, http::request::Builder};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{
    handshake::Answer,
    hop::Hop,
    net::{Endpoint, NoAnswer, PATIENCE},
    report::Finding,
    token,
};

const SSE: &str = "sse";
const POLL: &str = "poll";
/// How long the first bytes of a stream may take; the node sends them at once.
const FIRST_BYTES: Duration = Duration::from_secs(4);
/// What comes so soon after the first bytes belongs to the beginning.
const BEGINNING: Duration = Duration::from_millis(300);

fn with_token(request: Builder, token: Option<&str>) -> Builder {
    match token {
        Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
        None => request,
    }
}

/// What the node says of the token where no WebSocket opens.
pub(super) async fn token(endpoint: &Endpoint, token: Option<&str>) -> Finding {
    match ask(endpoint, "", token).await {
        Ok(answer) if answer.status == StatusCode::OK => {
            let welcome = answer.json["messages"].as_array().and_then(|messages| messages.first());
            token::accepted(token, welcome.unwrap_or(&Value::Null))
        }
        Ok(answer) if answer.code() == "unauthenticated" => match token {
            Some(token) => token::explained(token, answer.detail()),
            None => token::missing(),
        },
        _ => token::unasked(token),
    }
}

/// Opens a stream, waits for its beginning, and for something that must come `later` than that: a proxy that buffers may
/// still pass on what came together with the head of the answer.
pub(super) async fn sse(
    endpoint: &Endpoint,
    hop: &Hop,
    token: Option<&str>,
    later: Option<Duration>,
) -> Finding {
    let request = endpoint
        .request("/events?topics=")
        .header(header::ACCEPT, "text/event-stream")
        // As browsers do: a middle tier that compresses must show itself.
        .header(header::ACCEPT_ENCODING, "gzip, deflate, br");
    let started = Instant::now();
    let response = match timeout(FIRST_BYTES, endpoint.ask(with_token(request, token))).await {
        Err(_) => return buffered(hop, "no bytes", FIRST_BYTES),
        Ok(Err(silence)) => return failed(SSE, &silence, endpoint, hop),
        Ok(Ok(response)) => response,
    };
    if response.status() != StatusCode::OK {
        return refused(SSE, &Answer::read(response).await, hop);
    }
    let compressed = response.headers().contains_key(header::CONTENT_ENCODING);
    let mut body = response.into_body();
    match timeout(FIRST_BYTES, beginning(&mut body, compressed)).await {
        Err(_) => return buffered(hop, "no welcome", FIRST_BYTES),
        Ok(false) => {
            return Finding::bad(
                SSE,
                "The SSE stream ends before its first message.",
                "See the log of what stands between, and of the node.",
            );
        }
        Ok(true) => {}
    }
    let first = started.elapsed().as_millis();
    let Some(within) = later else {
        return Finding::good(SSE, format!("The first bytes come after {first} ms."));
    };
    match timeout(within, something_later(&mut body)).await {
        Err(_) => buffered(hop, "nothing after its beginning", within),
        Ok(true) => {
            Finding::good(SSE, format!("The first bytes come after {first} ms, and later ones as well."))
        }
        Ok(false) => Finding::bad(
            SSE,
            format!(
                "A quiet SSE stream is cut after {:.1} s by {}.",
                started.elapsed().as_secs_f64(),
                hop.name()
            ),
            hop.allow_silence(60),
        ),
    }
}

/// Reads up to the welcome (up to the first bytes, where they are compressed); `false`: the stream ended before.
async fn beginning(body: &mut Incoming, compressed: bool) -> bool {
    let mut text = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if text.windows(7).any(|word| word == b"welcome") || (compressed && !text.is_empty()) {
            return true;
        }
    }
    false
}

/// Waits for bytes that do not belong to the beginning; `false`: the stream ended before.
async fn something_later(body: &mut Incoming) -> bool {
    let begun = Instant::now();
    while let Some(Ok(_)) = body.frame().await {
        if begun.elapsed() > BEGINNING {
            return true;
        }
    }
    false
}

fn buffered(hop: &Hop, what: &str, within: Duration) -> Finding {
    let sentence = format!(
        "The SSE stream is held back: {what} within {} s, though the node sends something; {} buffers it.",
        within.as_secs(),
        hop.name()
    );
    Finding::bad(SSE, sentence, hop.stop_buffering())
}

/// Polls once for the beginning, and once more for at most `span`.
pub(super) async fn poll(endpoint: &Endpoint, hop: &Hop, token: Option<&str>, span: Duration) -> Finding {
    let started = Instant::now();
    let first = match ask(endpoint, "", token).await {
        Ok(answer) => answer,
        Err(silence) => return failed(POLL, &silence, endpoint, hop),
    };
    if first.status != StatusCode::OK {
        return refused(POLL, &first, hop);
    }
    let Some(cursor) = first.json["cursor"].as_str() else {
        return Finding::bad(
            POLL,
            "The answer to a poll is not a node's.",
            "Let the middle tier pass the path on to the nodes, and cache nothing below it.",
        );
    };
    let taken = started.elapsed().as_millis();
    let good = |more: &str| Finding::good(POLL, format!("A poll is answered after {taken} ms{more}."));
    if span.is_zero() {
        return good("");
    }
    let started = Instant::now();
    let patient = Duration::from_secs(40).min(span);
    match timeout(patient, wait(endpoint, &format!("&cursor={cursor}"), token)).await {
        Err(_) => good(&format!(", and a second one waits for {} s and longer", patient.as_secs())),
        Ok(Ok(answer)) if answer.status == StatusCode::OK => {
            good(", and a second one when there is something")
        }
        Ok(Ok(answer)) if !answer.status.is_server_error() => refused(POLL, &answer, hop),
        Ok(_) => Finding::bad(
            POLL,
            format!(
                "A poll that waits is cut after {:.1} s by {}; nodes answer after 25 s at the latest.",
                started.elapsed().as_secs_f64(),
                hop.name()
            ),
            hop.allow_silence(60),
        ),
    }
}

async fn ask(endpoint: &Endpoint, more: &str, token: Option<&str>) -> Result<Answer, NoAnswer> {
    let request = with_token(endpoint.request(&format!("/poll?topics={more}")), token);
    Ok(Answer::read(endpoint.ask(request).await?).await)
}

/// The same without an end to our patience.
async fn wait(endpoint: &Endpoint, more: &str, token: Option<&str>) -> Result<Answer, NoAnswer> {
    let request = with_token(endpoint.request(&format!("/poll?topics={more}")), token);
    Ok(Answer::read(endpoint.ask_patiently(request).await?).await)
}

fn refused(question: &'static str, answer: &Answer, hop: &Hop) -> Finding {
    let status = answer.status.as_u16();
    match answer.code() {
        "sse-disabled" | "poll-disabled" => {
            Finding::untested(question, format!("The site has switched it off ({question}.enabled = false)."))
        }
        "unauthenticated" => {
            Finding::untested(question, format!("The node refuses who asks ({status}): {}", answer.detail()))
        }
        "" => Finding::bad(
            question,
            format!("{} answers {status}, not the node.", hop.name()),
            "Let it pass everything below the path on to the nodes, unchanged.",
        ),
        code => Finding::bad(
            question,
            format!("The node refuses ({status}, {code}): {}", answer.detail()),
            "See the answers above.",
        ),
    }
}

fn failed(question: &'static str, silence: &NoAnswer, endpoint: &Endpoint, hop: &Hop) -> Finding {
    let what = match silence {
        NoAnswer::Late => format!("There is no answer within {} s", PATIENCE.as_secs()),
        NoAnswer::Closed => "The connection is closed without an answer".into(),
        NoAnswer::Gibberish => "The answer is not HTTP".into(),
        NoAnswer::Lost(error) => format!("{} cannot be reached any more ({error})", endpoint.place.authority),
    };
    Finding::bad(question, format!("{what}."), format!("See the log of what stands between: {}.", hop.name()))
}
