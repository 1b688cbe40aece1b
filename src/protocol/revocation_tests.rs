//! What an order covers, by which clock, and for how long.

use super::*;

fn proof(user: &str, made: Made) -> Proof {
    Proof { user: user.into(), sid: Some("browser 1".into()), jti: Some("token 1".into()), made }
}

fn order(kind: Kind, whom: Whom, at: u64) -> Revocation {
    Revocation { kind, whom, at }
}

fn anna() -> Whom {
    Whom::User("anna".into())
}

/// Learns it the moment it is given.
fn learn(all: &Revocations, order: &Revocation) -> bool {
    all.learn_by(order, Heard::AtOnce, order.at)
}

#[test]
fn a_token_from_before_the_order_is_covered_and_for_a_while_a_later_one() {
    let all = Revocations::default();
    let covers = |user: &str, issued| all.covers(&proof(user, Made::At(issued)), None);
    assert_eq!(covers("anna", 1), None);
    assert!(learn(&all, &order(Kind::Disconnect, anna(), 1_000_999)));
    for issued in [0, 999, 1000, 1030] {
        assert_eq!(covers("anna", issued), Some(Kind::Disconnect), "{issued}");
    }
    assert_eq!((covers("anna", 1031), covers("bo", 1)), (None, None));
}

#[test]
fn rights_that_have_changed_do_not_come_back_and_new_ones_count_at_once() {
    let all = Revocations::default();
    let covers = |issued, now: u64| {
        let covered = all.covers_by(&proof("anna", Made::At(issued)), None, now * 1000);
        assert!(covered.is_none_or(|kind| kind == Kind::Refresh));
        covered.is_some()
    };
    let must_renew = |issued| all.must_renew(&proof("anna", Made::At(issued)));
    assert!(!must_renew(1));
    assert!(learn(&all, &order(Kind::Refresh, anna(), 1_000_999)));
    assert!(covers(999, 1001) && covers(1000, 1001), "issued before");
    assert!(!covers(1001, 1001), "a new one counts at once");
    assert!(covers(1015, 1001), "a clock is ahead: it may have been issued before");
    assert!(covers(1015, 1020), "and does not become new by waiting");
    assert!(!covers(1016, 1020) && !covers(1031, 1031));
    assert!(covers(1001, 1031) && covers(1030, 1031), "after half a minute none of it is good");
    assert!(must_renew(999) && must_renew(1015) && must_renew(1030) && !must_renew(1031));
}

#[test]
fn an_order_counts_by_the_clock_of_the_node_that_hears_of_it() {
    const NOW: u64 = 1_000_000_000;
    let covers = |all: &Revocations, issued| all.covers(&proof("anna", Made::At(issued)), None).is_some();
    for (given, heard) in [
        (NOW - 60_000, Heard::AtOnce),
        (NOW + 60_000, Heard::AtOnce),
        (NOW + 3_600_000, Heard::Later),
        (NOW, Heard::Later),
    ] {
        let all = Revocations::default();
        let given = order(Kind::Disconnect, anna(), given);
        assert!(all.learn_by(&given, heard, NOW) && all.knows(&given));
        assert!(!all.learn_by(&given, Heard::Later, NOW + 9), "it is the same one");
        assert!(covers(&all, NOW / 1000 + 30) && !covers(&all, NOW / 1000 + 31), "{given:?}");
        assert_eq!(all.next(Kind::Disconnect, &anna(), NOW), NOW.max(given.at + 1));
        assert_eq!(all.next(Kind::Refresh, &anna(), NOW), NOW);
        let again = order(Kind::Disconnect, anna(), all.next(Kind::Disconnect, &anna(), NOW));
        assert!(all.learn_by(&again, Heard::AtOnce, NOW), "the next one is another");
    }
}

#[test]
fn an_answer_counts_as_of_when_it_was_asked_for() {
    let all = Revocations::default();
    let asked = |known, at| all.covers(&proof("anna", Made::Asked { known, at }), None);
    let before = all.latest();
    all.learn_by(&order(Kind::Disconnect, anna(), 1_000_000), Heard::Later, 1_020_000);
    let covered = Some(Kind::Disconnect);
    assert_eq!(asked(before, 1_000_000), covered, "the answer may be older than the order");
    assert_eq!(asked(all.latest(), 1_000_000), None, "it was asked for afterwards");
    assert_eq!(asked(before, 1_030_001), None, "this node heard of the order late");
    learn(&all, &order(Kind::Refresh, anna(), 1_000_000));
    assert_eq!(asked(before + 1, 1_000_000), Some(Kind::Refresh));
    learn(&all, &order(Kind::Disconnect, anna(), 1_000_001));
    assert_eq!(asked(before + 2, 1_060_000), covered, "heard at once: whatever other clocks say");
}

#[test]
fn one_session_and_one_token_can_be_named() {
    let all = Revocations::default();
    let token = proof("anna", Made::At(2_000));
    learn(&all, &order(Kind::Disconnect, Whom::Session("abc".into()), 1_000_000));
    assert_eq!((all.covers(&token, None), all.covers(&token, Some("abd"))), (None, None));
    assert_eq!(all.covers(&token, Some("abc")), Some(Kind::Disconnect));
    for whom in [Whom::Session("browser 1".into()), Whom::Token("token 1".into())] {
        let all = Revocations::default();
        learn(&all, &order(Kind::Disconnect, whom, 1_000_000));
        assert_eq!(all.covers(&token, None), Some(Kind::Disconnect));
    }
}

#[test]
fn what_concerns_nothing_any_more_is_forgotten_and_the_latest_wins() {
    let all = Revocations::new(Duration::from_secs(100), Naming::Exact);
    let first = now_ms();
    let of = |name: &str, at| order(Kind::Disconnect, Whom::User(name.into()), at);
    assert!(learn(&all, &of("anna", first)) && !learn(&all, &of("anna", first)));
    assert!(!learn(&all, &of("anna", first - 1_000)) && learn(&all, &of("anna", first + 1_000)));
    assert_eq!((all.all(), all.latest()), (vec![of("anna", first + 1_000)], 2));
    assert!(all.learn_by(&of("bo", first + 900_000), Heard::Later, first));
    assert_eq!(all.all().len(), 2, "the clock of another node makes nobody forget");
    assert!(learn(&all, &of("cleo", first + 221_001)));
    assert_eq!(all.read().known.len(), 1, "all that they concerned has ended");
    let all = Revocations::new(Duration::from_secs(100), Naming::Exact);
    assert!(learn(&all, &of("anna", first - 230_000)) && all.all().is_empty());
}

#[test]
fn names_are_read_as_they_are_written() {
    for kind in [Kind::Disconnect, Kind::Refresh] {
        for whom in [Whom::User("a b\n c".into()), Whom::Session(" x".into()), Whom::Token("ü".into())] {
            let written = order(kind, whom, 7);
            assert_eq!(Revocation::parse(&written.name(), 7), Some(written));
        }
    }
    for bad in ["", "disconnect", "disconnect user", "eat user anna", "disconnect cat tom"] {
        assert_eq!(Revocation::parse(bad, 7), None);
    }
}

#[test]
fn an_editor_is_compared_by_the_key_of_their_name() {
    for (naming, siblings) in [(Naming::Exact, None), (Naming::Folded, Some(Kind::Disconnect))] {
        let all = Revocations::new(Duration::from_secs(100), naming);
        learn(&all, &order(Kind::Disconnect, Whom::User("\u{212A}ai A".into()), 1_000_000));
        let covers = |sub: &str| {
            let key = naming.key(sub).unwrap();
            all.covers(&proof(&key, Made::At(1)), None)
        };
        assert_eq!(covers("\u{212A}ai A"), Some(Kind::Disconnect));
        for sibling in ["kai a", "Kai A", "\u{212A}AI a"] {
            assert_eq!(covers(sibling), siblings, "{naming:?} {sibling}");
        }
        assert_eq!(covers("\u{212A}ai%20A"), None);
        learn(&all, &order(Kind::Disconnect, Whom::User("bo\n".into()), 1_000_000));
        assert_eq!((covers("bo"), covers("bo%0A")), (None, None), "nobody is called so");
    }
}
