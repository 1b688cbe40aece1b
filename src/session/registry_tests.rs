//! The registry by itself: slots, rates and drains, without transports.

use super::*;

fn registry(limits: Limits) -> Arc<SessionRegistry> {
    SessionRegistry::new(limits, Duration::from_secs(25), Metrics::new())
}

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const AWAY: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

#[test]
fn places_are_limited_and_given_back() {
    let registry = registry(Limits {
        sessions: 3,
        per_address: 2,
        editor: Budgets { sessions: 1, ..Budgets::default() },
        ..Limits::default()
    });
    let mut first = registry.enter(HOME).unwrap();
    let mut second = registry.enter(HOME).unwrap();
    assert_eq!(registry.enter(HOME).unwrap_err(), Full::Address);
    let third = registry.enter(AWAY).unwrap();
    assert_eq!(registry.enter(AWAY).unwrap_err(), Full::Node);
    first.begin(Transport::WebSocket, Outbox::pulled(1));
    second.begin(Transport::WebSocket, Outbox::pulled(1));
    assert!(first.admit("anna") && !second.admit("anna") && second.admit("bo"));
    drop((first, third));
    assert!(!registry.enter(HOME).unwrap().admit("anna"), "a place that has not begun counts for nobody");
    assert_eq!((registry.len(), registry.editors()), (1, 1));
    drop(second);
    let inner = registry.lock();
    assert!(inner.slots.is_empty() && inner.addresses.is_empty());
    assert!(
        inner.editors.values().all(|editor| editor.sessions == 0),
        "what they have used up is remembered"
    );
}

#[test]
fn newcomers_come_at_a_limited_rate_and_strangers_have_their_own() {
    let registry = registry(Limits { per_second: 2, strangers_per_second: 1, ..Limits::default() });
    assert_eq!((0..9).filter(|_| registry.count(false).is_ok()).count(), 2);
    assert_eq!((0..9).filter(|_| registry.count(true).is_ok()).count(), 4, "whoever is known has room left");
    assert_eq!(registry.count(true).unwrap_err(), Full::Rate);
    assert_eq!(registry.count(false).unwrap_err(), Full::Strangers);
}

#[test]
fn where_nobody_says_who_they_are_the_address_is_the_editor() {
    let editor = Budgets { sessions: 1, requests_per_second: 50, ..Budgets::default() };
    for (by_address, second) in [(true, true), (false, false)] {
        let registry = registry(Limits { editor, by_address, ..Limits::default() });
        let (mut here, mut there) = (registry.enter(HOME).unwrap(), registry.enter(AWAY).unwrap());
        here.begin(Transport::Poll, Outbox::pulled(1));
        there.begin(Transport::Poll, Outbox::pulled(1));
        assert!(here.admit("anonymous"));
        assert_eq!(there.admit("anonymous"), second);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_everybody_within_the_window() {
    let registry = registry(Limits::default());
    let slots: Vec<_> = (0..10)
        .map(|_| {
            let mut slot = registry.enter(HOME).unwrap();
            let liveness = slot.begin(Transport::Poll, Outbox::pulled(1));
            (slot, liveness)
        })
        .collect();
    let mut late = registry.enter(HOME).unwrap();
    registry.drain(Duration::from_millis(200)).await;
    assert_eq!(registry.enter(HOME).unwrap_err(), Full::Draining);
    let late = late.begin(Transport::WebSocket, Outbox::pulled(1));
    let notice = futures_util::FutureExt::now_or_never(late.outbox().notice());
    assert!(matches!(notice, Some(crate::hub::Notice::Closing(_))), "it was let in and began too late");
    for (_, liveness) in &slots {
        let notice = futures_util::FutureExt::now_or_never(liveness.outbox().notice());
        let Some(crate::hub::Notice::Closing(closing)) = notice else { panic!("{notice:?}") };
        assert_eq!(closing.code, CloseCode::Drain);
        assert!(closing.reconnect_after_ms.unwrap() <= 200);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_away_for_a_second_window() {
    let registry = registry(Limits::default());
    let slots: Vec<_> = (0..50)
        .map(|_| {
            let mut slot = registry.enter(HOME).unwrap();
            let liveness = slot.begin(Transport::Poll, Outbox::pulled(1));
            (slot, liveness)
        })
        .collect();
    registry.drain(Duration::from_mins(1)).await;
    for (_, liveness) in &slots {
        let notice = futures_util::FutureExt::now_or_never(liveness.outbox().notice());
        let Some(crate::hub::Notice::Closing(closing)) = notice else { panic!("{notice:?}") };
        assert!(closing.reconnect_after_ms.unwrap() <= 2_000);
    }
}

#[tokio::test(start_paused = true)]
async fn whom_the_node_could_not_hear_while_it_stood_still_is_not_called_silent() {
    let registry = registry(Limits::default());
    let mut slot = registry.enter(HOME).unwrap();
    let liveness = slot.begin(Transport::WebSocket, Outbox::pulled(1));
    liveness.open();
    let ended = || {
        let notice = futures_util::FutureExt::now_or_never(liveness.outbox().notice());
        matches!(notice, Some(crate::hub::Notice::Closing(_)))
    };
    let sweep = Arc::clone(&registry).sweep(Revocations::default());
    let life = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The whole process stands still, for longer than two heartbeats.
        tokio::time::advance(Duration::from_secs(60)).await;
        // Long enough for the sweep to look at every session, and no longer than unread bytes are waited for.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(!ended(), "what it said may lie unread");
        slot.heard();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(!ended(), "it was there");
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert!(ended(), "and now it is silent");
    };
    tokio::select! {
        () = sweep => {}
        () = life => {}
    }
}
