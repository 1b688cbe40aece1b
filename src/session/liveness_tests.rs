//! What is due for a session, and when.

use super::*;
use crate::session::{
    Cursor, CursorPlace,
    sse::text::{SseChunks, SseText},
};

const BEAT: Duration = Duration::from_secs(25);

fn liveness() -> SessionLiveness {
    SessionLiveness::new(Transport::WebSocket, Outbox::pulled(1), 1000)
}

#[test]
fn connect_must_come_within_ten_seconds() {
    let liveness = liveness();
    assert_eq!(liveness.due(10_999, 0, BEAT), None);
    liveness.heard(10_000);
    assert!(
        matches!(liveness.due(11_000, 0, BEAT), Some(Due::Close(CloseCode::TimedOut, _))),
        "Pings are no connect"
    );
    liveness.introduced();
    assert_eq!(liveness.due(11_000, 0, BEAT), None, "who it is may take longer");
    liveness.open();
    assert_eq!(liveness.due(11_000, 0, BEAT), None);
}

#[test]
fn silence_is_answered_by_one_ping_and_then_by_the_end() {
    let liveness = liveness();
    liveness.open();
    assert_eq!(liveness.due(25_999, 0, BEAT), None);
    assert_eq!(liveness.due(26_000, 0, BEAT), Some(Due::Beat));
    liveness.act(Due::Beat, 26_000, 0);
    assert!(liveness.take(TaskRequest::Beat) && !liveness.take(TaskRequest::Beat));
    assert_eq!(liveness.due(27_000, 0, BEAT), None);
    assert!(matches!(liveness.due(51_000, 0, BEAT), Some(Due::Close(CloseCode::TimedOut, _))));
    liveness.heard(50_999);
    assert_eq!(liveness.due(51_000, 0, BEAT), None);
    assert_eq!(liveness.due(50_000, 0, BEAT), None, "heard after the clock was read");
}

#[test]
fn a_resync_that_the_connection_does_not_take_ends_the_session() {
    let liveness = liveness();
    liveness.open();
    let ends = |clock| matches!(liveness.due(clock, 0, BEAT), Some(Due::Close(CloseCode::TooSlow, _)));
    assert!(!ends(20_000));
    liveness.owe(Some(2_001));
    assert!(!ends(12_000) && ends(12_001));
    assert!(!ends(2_000), "said after the clock was read");
    liveness.owe(Some(5_001));
    assert!(!ends(15_000), "the connection took some");
    liveness.owe(None);
    assert!(!ends(20_000), "and the rest");
}

#[test]
fn a_token_is_warned_about_once_and_then_ends() {
    let liveness = liveness();
    liveness.open();
    liveness.hold(Some(700_000), 100_000, false);
    assert_eq!(liveness.due(1000, 639_999, BEAT), None);
    assert_eq!(liveness.due(1000, 640_000, BEAT), Some(Due::Warn));
    liveness.act(Due::Warn, 1000, 640_000);
    assert_eq!(liveness.due(1000, 640_001, BEAT), None);
    assert!(matches!(liveness.due(1000, 700_000, BEAT), Some(Due::Close(CloseCode::Unauthenticated, _))));
    liveness.hold(Some(800_000), 690_000, true);
    assert_eq!(liveness.due(1000, 700_000, BEAT), None, "a new token lasts longer");
    liveness.act(Due::Warn, 1000, 763_000);
    assert!(liveness.take(TaskRequest::Renew));
}

#[test]
fn whose_rights_have_changed_brings_a_new_token_or_goes() {
    let liveness = liveness();
    liveness.open();
    liveness.hold(Some(900_000), 100_000, false);
    liveness.refresh(200_000);
    assert_eq!(liveness.outbox().pull(9).len(), 1, "it is told at once");
    assert_eq!(liveness.due(1000, 208_000, BEAT), Some(Due::Warn), "and again");
    liveness.act(Due::Warn, 1000, 208_000);
    liveness.refresh(210_000);
    assert_eq!(liveness.outbox().pull(9).len(), 1, "an order that comes twice changes nothing");
    assert_eq!(
        liveness.due(1000, 230_000, BEAT),
        Some(Due::Close(CloseCode::Unauthenticated, NOT_REFRESHED))
    );
    liveness.hold(Some(900_000), 229_000, true);
    assert_eq!(liveness.due(1000, 230_000, BEAT), None, "a new token came");
    liveness.refresh(240_000);
    assert!(liveness.take(TaskRequest::Renew), "the node asks by itself");
}

#[test]
fn a_stream_that_is_not_read_ends_after_two_heartbeats() {
    let outbox = Outbox::pulled(1);
    let liveness = SessionLiveness::new(Transport::Sse, outbox, 1000);
    liveness.open();
    assert_eq!(liveness.due(26_000, 0, BEAT), Some(Due::Beat));
    liveness.act(Due::Beat, 26_000, 0);
    assert!(liveness.take(TaskRequest::Beat), "its task says it");
    liveness.heard(26_001);
    assert_eq!(liveness.due(51_000, 0, BEAT), None, "its connection has taken that");
    assert_eq!(liveness.due(52_000, 0, BEAT), Some(Due::Beat));
    liveness.act(Due::Beat, 52_000, 0);
    assert!(matches!(liveness.due(77_000, 0, BEAT), Some(Due::Close(CloseCode::TimedOut, _))));
    let framing = Box::new(SseChunks(SseText { cursor: Cursor::default(), place: CursorPlace::Query }));
    // It has no socket yet, so it writes nothing: as if the socket took nothing.
    let liveness = SessionLiveness::new(Transport::Sse, Outbox::promised(framing, 1), 1000);
    liveness.open();
    assert_eq!(liveness.due(26_000, 0, BEAT), Some(Due::Beat));
    liveness.act(Due::Beat, 26_000, 0);
    assert_eq!(liveness.due(50_999, 0, BEAT), None, "what waits is beat enough");
    assert!(matches!(liveness.due(51_000, 0, BEAT), Some(Due::Close(CloseCode::TimedOut, _))));
    liveness.heard(50_000);
    assert_eq!(liveness.due(51_000, 0, BEAT), None, "the socket took something");
}
