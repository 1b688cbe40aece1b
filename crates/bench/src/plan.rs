//! The plan of a bench: who follows what, and what is published where. The same for the bench and its readers.
//!
//! Session `i` follows `per_session` topics in turn, event `e` goes to topic `e % topics` and carries its number there,
//! so that everyone can tell what must come next without asking.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeAddress {
    /// Its address.
    pub(super) address: SocketAddr,
    /// What goes into `Host`.
    pub(super) host: String,
    /// The path of the handshake.
    pub(super) path: String,
}

/// Who follows what, where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The nodes; sessions are spread over them in turn.
    pub(super) nodes: Vec<NodeAddress>,
    /// The token of every session, if there is one.
    pub(super) token: Option<String>,
    /// The area of all topics.
    pub(super) area: String,
    /// How many topics there are.
    pub(super) topics: u32,
    /// How many of them a session follows.
    pub(super) per_session: u32,
    /// Handshakes that a reader has under way at a time.
    pub(super) at_once: usize,
    /// The first so many sessions get small receive buffers, because they will not be read.
    pub(super) slow: u32,
}

impl Plan {
    /// The topics of a session, by number.
    pub(super) fn follows(&self, session: u32) -> impl Iterator<Item = u32> + use<> {
        let (topics, count) = (u64::from(self.topics), self.per_session.min(self.topics));
        let first = u64::from(session) * u64::from(count);
        (0..u64::from(count)).map(move |n| ((first + n) % topics) as u32)
    }

    /// The name of a topic.
    pub(super) fn topic(&self, number: u32) -> String {
        format!("{}:b{number}", self.area)
    }

    /// The name of the topic that the bare receive and send follows in place of this one: no node does.
    pub(super) fn forwarded(&self, number: u32) -> String {
        format!("{}:f{number}", self.area)
    }

    /// The number of a topic that the plan has named.
    pub(super) fn number(topic: &[u8]) -> Option<u32> {
        let colon = topic.iter().position(|b| *b == b':')?;
        digits(topic.get(colon + 1..)?.strip_prefix(b"b")?).map(|(number, _)| number as u32)
    }

    /// The topic of the `e`th event, and its number there, from 1.
    pub(super) fn place(&self, e: u64) -> (u32, u64) {
        let topics = u64::from(self.topics);
        ((e % topics) as u32, e / topics + 1)
    }

    /// How many of the first `events` events went to a topic.
    pub(super) fn published(&self, topic: u32, events: u64) -> u64 {
        let topics = u64::from(self.topics);
        events / topics + u64::from(u64::from(topic) < events % topics)
    }

    /// Each event is followed by one session in so many.
    pub(super) fn stride(&self) -> u64 {
        u64::from((self.topics / self.per_session.max(1)).max(1))
    }

    /// How many deliveries the first `events` events make on the floor, where each goes to every `stride`th of the sockets.
    pub(super) fn on_floor(&self, sockets: u64, events: u64) -> u64 {
        let (stride, rest) = (self.stride(), events % self.stride());
        events / stride * sockets + sockets / stride * rest + rest.min(sockets % stride)
    }

    /// How many deliveries the first `events` events make, given the followers of each topic.
    pub(super) fn deliveries(&self, followers: &[u64], events: u64) -> u64 {
        (0..).zip(followers).map(|(topic, followers)| followers * self.published(topic, events)).sum()
    }
}

/// The event number `n` of a topic, published at `time` (ns since 1970), of `bytes` bytes where that is enough.
pub(super) fn event(n: u64, time: u64, bytes: usize) -> String {
    let mut json = format!(r#"{{"type":"bench.tick","data":{{"n":{n},"t":{time},"pad":""#);
    let pad = bytes.saturating_sub(json.len() + 3);
    json.extend(std::iter::repeat_n('x', pad));
    json.push_str(r#""}}"#);
    json
}

/// What a session reads out of an event's message: topic, number, time.
pub(super) fn read_event(message: &[u8]) -> Option<(u32, u64, u64)> {
    let rest = message.strip_prefix(br#"{"type":"event","topic":""#)?;
    let topic = Plan::number(&rest[..rest.iter().position(|b| *b == b'"')?])?;
    let rest = behind(rest, br#""data":{"n":"#)?;
    let (n, length) = digits(rest)?;
    let rest = behind(&rest[length..], br#""t":"#)?;
    Some((topic, n, digits(rest)?.0))
}

fn behind<'a>(bytes: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    let at = bytes.windows(what.len()).position(|window| window == what)?;
    bytes.get(at + what.len()..)
}

fn digits(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let number =
        bytes[..length].iter().try_fold(0_u64, |n, b| n.checked_mul(10)?.checked_add(u64::from(b - b'0')));
    number.filter(|_| length > 0).map(|number| (number, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(topics: u32, per_session: u32) -> Plan {
        let area = "comments".into();
        Plan { nodes: Vec::new(), token: None, area, topics, per_session, at_once: 1, slow: 0 }
    }

    #[test]
    fn followers_are_spread_evenly_and_counted() {
        let plan = plan(4, 3);
        let mut followers = vec![0; 4];
        for session in 0..8 {
            plan.follows(session).for_each(|topic| followers[topic as usize] += 1);
        }
        assert_eq!(followers, [6; 4]);
        assert_eq!(plan.deliveries(&followers, 4), 24);
        assert_eq!(plan.deliveries(&followers, 5), 30);
        assert_eq!((plan.place(0), plan.place(5)), ((0, 1), (1, 2)));
    }

    #[test]
    fn the_floor_delivers_as_often_as_the_plan() {
        for (topics, per_session, first) in [(1, 1, 7), (10, 1, 7), (4, 2, 7), (20, 1, 5)] {
            let plan = plan(topics, per_session);
            // Event by event: the sockets whose number is the event's, but for whole strides.
            let one = |e| (0..7).filter(|socket| socket % plan.stride() == e % plan.stride()).count() as u64;
            assert_eq!(plan.on_floor(7, first), (0..first).map(one).sum::<u64>(), "{topics} topics");
        }
    }

    #[test]
    fn an_event_is_read_back() {
        let event = event(17, 123_456, 200);
        assert_eq!(event.len(), 200);
        let message = format!(
            r#"{{"type":"event","topic":"comments:b42","position":"ab.5-1","at":9,"event":{event}}}"#
        );
        assert_eq!(read_event(message.as_bytes()), Some((42, 17, 123_456)));
        assert_eq!(read_event(br#"{"type":"pong","at":7}"#), None);
    }
}
