//! Which server of a cluster has which slot. Values only. A plain Redis counts as a cluster of one, so that no other file needs to tell
//! them apart.

use fred::{prelude::Server, types::Value, util::redis_keyslot};

use super::reply;

/// Slots of a cluster.
pub(super) const SLOTS: u32 = 16_384;

/// A range of slots, both ends in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    master: Server,
}

/// The masters and their slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Slots {
    /// In the order of the slots, without overlaps.
    ranges: Vec<Range>,
}

/// An answer that sends a command elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot has moved for good.
    Moved(u16, Server),
    /// The slot is being moved, and this key is on the new server already: ask there (ASKING).
    Ask(u16, Server),
}

/// The slot of a key or channel.
pub(super) fn slot(name: &str) -> u16 {
    redis_keyslot(name.as_bytes())
}

impl Slots {
    /// One server that has everything.
    pub(super) fn only(server: Server) -> Self {
        Self { ranges: vec![Range { first: 0, last: u16::MAX, master: server }] }
    }

    /// Reads what CLUSTER SLOTS answers. A server that does not know its own name announces an empty one, null or `?`:
    /// then it is `asked`, the server that was asked.
    pub(super) fn parse(answer: Value, asked: &Server) -> Option<Self> {
        let mut ranges = Vec::new();
        for range in reply::items(answer) {
            let mut parts = reply::items(range).into_iter();
            let (first, last) = (number(parts.next()?)?, number(parts.next()?)?);
            let mut master = reply::items(parts.next()?).into_iter();
            let host = reply::text(master.next()?);
            let port = number(master.next()?)?;
            ranges.push(Range { first, last, master: announced(&host, port, asked) });
        }
        ranges.sort_by_key(|range| range.first);
        (!ranges.is_empty()).then_some(Self { ranges })
    }

    /// Who has the slot of a key or channel; `None` where nobody has it.
    pub(super) fn owner(&self, name: &str) -> Option<&Server> {
        self.owner_of(slot(name))
    }

    /// Who has a slot.
    pub(super) fn owner_of(&self, slot: u16) -> Option<&Server> {
        let at = self.ranges.partition_point(|range| range.last < slot);
        self.ranges.get(at).filter(|range| range.first <= slot).map(|range| &range.master)
    }

    /// Every master that has slots, each once, in the order of their slots.
    pub(super) fn masters(&self) -> Vec<Server> {
        let mut masters: Vec<Server> = Vec::new();
        for range in &self.ranges {
            if !masters.contains(&range.master) {
                masters.push(range.master.clone());
            }
        }
        masters
    }

    /// Whether every slot has a master.
    pub(super) fn is_complete(&self) -> bool {
        let mut next = 0;
        for range in &self.ranges {
            if u32::from(range.first) != next {
                return false;
            }
            next = u32::from(range.last) + 1;
        }
        next >= SLOTS
    }

    /// One slot has another master.
    pub(super) fn moved(&mut self, slot: u16, master: Server) {
        if self.owner_of(slot) == Some(&master) {
            return;
        }
        let mut ranges = Vec::with_capacity(self.ranges.len() + 2);
        for range in self.ranges.drain(..) {
            if slot < range.first || range.last < slot {
                ranges.push(range);
                continue;
            }
            if range.first < slot {
                ranges.push(Range { last: slot - 1, ..range.clone() });
            }
            if slot < range.last {
                ranges.push(Range { first: slot + 1, ..range });
            }
        }
        ranges.push(Range { first: slot, last: slot, master });
        ranges.sort_by_key(|range| range.first);
        self.ranges = ranges;
    }
}

/// Reads `MOVED 3999 127.0.0.1:6381` and `ASK …`; without a host it is `asked`, the server that answered.
pub(super) fn redirect(text: &str, asked: &Server) -> Option<Redirect> {
    let mut words = text.split(' ');
    let kind = words.next()?;
    let slot = words.next()?.parse().ok()?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    let server = announced(host, port.parse().ok()?, asked);
    match kind {
        "MOVED" => Some(Redirect::Moved(slot, server)),
        "ASK" => Some(Redirect::Ask(slot, server)),
        _ => None,
    }
}

/// A server that `asked` told of. One that has only an address is checked by the name that `asked` has: certificates are
/// made for names.
pub(super) fn announced(host: &str, port: u16, asked: &Server) -> Server {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if matches!(host, "" | "?") {
        return Server { port, ..asked.clone() };
    }
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let tls_server_name = asked.tls_server_name.clone().filter(|_| is_address);
    Server { host: host.into(), port, tls_server_name }
}

fn number(value: Value) -> Option<u16> {
    reply::text(value).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Server {
        Server::new("asked", 7)
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, port.into(), "id".into(), Value::Array(Vec::new())]);
        let replica = Value::Array(vec!["replica".into(), 9.into(), "id2".into()]);
        Value::Array(vec![first.into(), last.into(), master, replica])
    }

    #[test]
    fn slots_are_read_and_found() {
        let answer = vec![
            range(8000, 16_383, "b".into(), 2),
            range(0, 99, "a".into(), 1),
            range(100, 7999, "b".into(), 2),
        ];
        let slots = Slots::parse(Value::Array(answer), &asked()).unwrap();
        assert_eq!(slots.masters(), [Server::new("a", 1), Server::new("b", 2)]);
        assert!(slots.is_complete());
        let owner = |slot| slots.owner_of(slot).unwrap().port;
        assert_eq!([0, 99, 100, 7999, 8000, 16_383].map(owner), [1, 1, 2, 2, 2, 2]);
        assert_eq!(slots.owner("carillon:x"), slots.owner("{carillon:x}:y"));
    }

    #[test]
    fn a_server_without_a_name_is_the_one_that_was_asked() {
        for nameless in [Value::Null, "".into(), "?".into()] {
            let slots = Slots::parse(Value::Array(vec![range(0, 16_383, nameless, 7001)]), &asked()).unwrap();
            assert_eq!(slots.masters(), [Server::new("asked", 7001)]);
        }
        let moved = redirect("MOVED 5 :7002", &asked());
        assert_eq!(moved, Some(Redirect::Moved(5, Server::new("asked", 7002))));
        assert_eq!(redirect("MOVED 5 ?:7002", &asked()), moved);
    }

    #[test]
    fn a_slot_that_nobody_has_has_no_owner() {
        let slots = Slots::parse(Value::Array(vec![range(10, 20, "a".into(), 1)]), &asked()).unwrap();
        assert!(!slots.is_complete());
        assert_eq!([9, 10, 20, 21].map(|slot| slots.owner_of(slot).is_some()), [false, true, true, false]);
        assert_eq!(Slots::parse(Value::Array(Vec::new()), &asked()), None);
        assert_eq!(Slots::parse(Value::Null, &asked()), None);
    }

    #[test]
    fn a_server_with_an_address_only_is_checked_by_the_name_that_was_asked() {
        let asked = Server { tls_server_name: Some("redis.example".into()), ..Server::new("10.0.0.1", 7) };
        let name = |host| announced(host, 8, &asked).tls_server_name.map(|name| name.to_string());
        assert_eq!(name("10.0.0.2").as_deref(), Some("redis.example"));
        assert_eq!(name("fd00::2").as_deref(), Some("redis.example"));
        assert_eq!(name("?").as_deref(), Some("redis.example"));
        assert_eq!(name("other.example"), None, "it has a name of its own");
    }

    #[test]
    fn single_slots_move() {
        let mut slots = Slots::parse(Value::Array(vec![range(0, 16_383, "a".into(), 1)]), &asked()).unwrap();
        for slot in [0, 5, 6, 16_383, 5] {
            slots.moved(slot, Server::new("b", 2));
        }
        let owner = |slot| slots.owner_of(slot).unwrap().port;
        assert_eq!([0, 1, 4, 5, 6, 7, 16_382, 16_383].map(owner), [2, 1, 1, 2, 2, 1, 1, 2]);
        slots.moved(5, Server::new("a", 1));
        assert_eq!(slots.owner_of(5).unwrap().port, 1);
        assert!(slots.is_complete());
    }

    #[test]
    fn answers_that_send_elsewhere_are_read() {
        let server = |host: &str, port| Server::new(host, port);
        assert_eq!(
            redirect("ASK 3999 127.0.0.1:6381", &asked()),
            Some(Redirect::Ask(3999, server("127.0.0.1", 6381)))
        );
        assert_eq!(redirect("MOVED 1 ::1:6381", &asked()), Some(Redirect::Moved(1, server("::1", 6381))));
        assert_eq!(redirect("MOVED 1 [::1]:6381", &asked()), Some(Redirect::Moved(1, server("::1", 6381))));
        for other in ["ERR no", "MOVED x y:1", "MOVED 1", "TRYAGAIN Multiple keys request during rehashing"] {
            assert_eq!(redirect(other, &asked()), None, "{other}");
        }
    }
}
