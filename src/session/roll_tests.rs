//! The roll by itself: places, rates and drains, without transports.

use super::*;

fn roll(limits: Limits) -> Arc<Roll> {
    Roll::new(limits, Duration::from_secs(25), Metrics::new())
}

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const AWAY: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

#[test]
fn places_are_limited_and_given_back() {
    let roll = roll(Limits {
        sessions: 3,
        per_address: 2,
        editor: Budgets { sessions: 1, ..Budgets::default() },
        ..Limits::default()
    });
    let mut first = roll.enter(HOME).unwrap();
    let mut second = roll.enter(HOME).unwrap();
    assert_eq!(roll.enter(HOME).unwrap_err(), Full::Address);
    let third = roll.enter(AWAY).unwrap();
    assert_eq!(roll.enter(AWAY).unwrap_err(), Full::Node);
    first.begin(Transport::WebSocket, Outbox::pulled(1));
    second.begin(Transport::WebSocket, Outbox::pulled(1));
    assert!(first.admit("anna") && !second.admit("anna") && second.admit("bo"));
    drop((first, third));
    assert!(!roll.enter(HOME).unwrap().admit("anna"), "a place that has not begun counts for nobody");
    assert_eq!((roll.len(), roll.editors()), (1, 1));
    drop(second);
    let inner = roll.lock();
    assert!(inner.places.is_empty() && inner.addresses.is_empty());
    assert!(
        inner.editors.values().all(|editor| editor.sessions == 0),
        "what they have used up is remembered"
    );
}

#[test]
fn newcomers_come_at_a_limited_rate_and_strangers_have_their_own() {
    let roll = roll(Limits { per_second: 2, strangers_per_second: 1, ..Limits::default() });
    assert_eq!((0..9).filter(|_| roll.count(false).is_ok()).count(), 2);
    assert_eq!((0..9).filter(|_| roll.count(true).is_ok()).count(), 4, "whoever is known has room left");
    assert_eq!(roll.count(true).unwrap_err(), Full::Rate);
    assert_eq!(roll.count(false).unwrap_err(), Full::Strangers);
}

#[test]
fn where_nobody_says_who_they_are_the_address_is_the_editor() {
    let editor = Budgets { sessions: 1, requests_per_second: 50, ..Budgets::default() };
    for (by_address, second) in [(true, true), (false, false)] {
        let roll = roll(Limits { editor, by_address, ..Limits::default() });
        let (mut here, mut there) = (roll.enter(HOME).unwrap(), roll.enter(AWAY).unwrap());
        here.begin(Transport::Poll, Outbox::pulled(1));
        there.begin(Transport::Poll, Outbox::pulled(1));
        assert!(here.admit("anonymous"));
        assert_eq!(there.admit("anonymous"), second);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_everybody_within_the_window() {
    let roll = roll(Limits::default());
    let places: Vec<_> = (0..10)
        .map(|_| {
            let mut place = roll.enter(HOME).unwrap();
            let pulse = place.begin(Transport::Poll, Outbox::pulled(1));
            (place, pulse)
        })
        .collect();
    let mut late = roll.enter(HOME).unwrap();
    roll.drain(Duration::from_millis(200)).await;
    assert_eq!(roll.enter(HOME).unwrap_err(), Full::Draining);
    let late = late.begin(Transport::WebSocket, Outbox::pulled(1));
    let notice = futures_util::FutureExt::now_or_never(late.outbox().notice());
    assert!(matches!(notice, Some(crate::hub::Notice::Closing(_))), "it was let in and began too late");
    for (_, pulse) in &places {
        let notice = futures_util::FutureExt::now_or_never(pulse.outbox().notice());
        let Some(crate::hub::Notice::Closing(closing)) = notice else { panic!("{notice:?}") };
        assert_eq!(closing.code, CloseCode::Drain);
        assert!(closing.reconnect_after_ms.unwrap() <= 200);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_away_for_a_second_window() {
    let roll = roll(Limits::default());
    let places: Vec<_> = (0..50)
        .map(|_| {
            let mut place = roll.enter(HOME).unwrap();
            let pulse = place.begin(Transport::Poll, Outbox::pulled(1));
            (place, pulse)
        })
        .collect();
    roll.drain(Duration::from_mins(1)).await;
    for (_, pulse) in &places {
        let notice = futures_util::FutureExt::now_or_never(pulse.outbox().notice());
        let Some(crate::hub::Notice::Closing(closing)) = notice else { panic!("{notice:?}") };
        assert!(closing.reconnect_after_ms.unwrap() <= 2_000);
    }
}

#[tokio::test(start_paused = true)]
async fn whom_the_node_could_not_hear_while_it_stood_still_is_not_called_silent() {
    let roll = roll(Limits::default());
    let mut place = roll.enter(HOME).unwrap();
    let pulse = place.begin(Transport::WebSocket, Outbox::pulled(1));
    pulse.open();
    let ended = || {
        let notice = futures_util::FutureExt::now_or_never(pulse.outbox().notice());
        matches!(notice, Some(crate::hub::Notice::Closing(_)))
    };
    let sweep = Arc::clone(&roll).sweep(Revocations::default());
    let life = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The whole process stands still, for longer than two heartbeats.
        tokio::time::advance(Duration::from_secs(60)).await;
        // Long enough for the sweep to look at every session, and no longer than unread bytes are waited for.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert!(!ended(), "what it said may lie unread");
        place.heard();
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
