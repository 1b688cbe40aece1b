//! The reader of a link: takes what Redis pushes, in order, and hands it on.
//!
//! It never waits for the relay once the link is up, because Redis cuts off a subscriber that reads too slowly. Before
//! the first probe has come back it holds everything, so that nothing is delivered ahead of `Up`. It ends with its link;
//! what it had not handed on is gone.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{incoming::Message, messages::PushReceiver, revoked::read_order};
use crate::{
    bus::{
        BusEvent, Content, Delivery, LinkChange, QUEUE, Settings, arrivals::Arrivals, keys::Keys, message,
    },
    protocol::{Heard, Topic},
};

/// Messages that are taken before others may run: tokio counts them as one.
const TOGETHER: usize = 8;

/// What the reader of one link needs.
pub(super) struct Reader {
    messages: PushReceiver,
    keys: Keys,
    settings: Arc<Settings>,
    arrivals: Arrivals,
    /// The link's own number: probes of an earlier link of this node prove nothing.
    link: u64,
    control: String,
    probes: String,
    /// The last message of a channel. A pattern that matches, too, delivers its copy directly behind it, which is dropped.
    before: Option<(Bytes, Bytes)>,
    /// What arrived before the link was up.
    held: Option<Vec<BusEvent>>,
    /// It has begun to say `Up`.
    opened: bool,
    round: Round,
    returned: watch::Sender<u64>,
}

/// The probes of one round that have come back.
#[derive(Debug, Default)]
struct Round {
    number: u64,
    at: u64,
    asked: u64,
    back: HashSet<usize>,
}

impl Round {
    fn proof(&self) -> BusEvent {
        BusEvent::Proof { at: self.at, asked: *BEGAN + Duration::from_millis(self.asked) }
    }
}

/// What travels with a probe.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProbeToken {
    /// Number of the link.
    pub(super) link: u64,
    /// Number of the round.
    pub(super) round: u64,
    /// Number of this probe in the round, from 0; the first one's clock counts.
    pub(super) index: usize,
    /// Probes in the round.
    pub(super) count: usize,
    /// When it was asked for, ms since [`BEGAN`].
    pub(super) asked: u64,
}

/// What the moments of probes are counted from: only this process reads them.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl ProbeToken {
    /// The present moment, as [`ProbeToken::asked`] has it.
    pub(super) fn moment() -> u64 {
        BEGAN.elapsed().as_millis() as u64
    }

    /// As it is sent.
    pub(super) fn text(&self) -> String {
        format!("{} {} {} {} {}", self.link, self.round, self.index, self.count, self.asked)
    }

    /// Reads `<ms> <token>`.
    fn parse(message: &[u8]) -> Option<(u64, Self)> {
        let mut numbers = std::str::from_utf8(message).ok()?.split(' ');
        let mut next = || numbers.next()?.parse::<u64>().ok();
        let (at, link, round) = (next()?, next()?, next()?);
        let (index, count) = (usize::try_from(next()?).ok()?, usize::try_from(next()?).ok()?);
        let asked = next()?;
        Some((at, Self { link, round, index, count, asked }))
    }
}

impl Reader {
    /// A reader, and the number of the last round that came back.
    pub(super) fn new(
        messages: PushReceiver,
        settings: Arc<Settings>,
        arrivals: Arrivals,
        link: u64,
    ) -> (Self, watch::Receiver<u64>) {
        let keys = Keys::new(&settings.prefix);
        let (returned, returns) = watch::channel(0);
        let reader = Self {
            messages,
            control: keys.control(),
            probes: keys.probe("").trim_end_matches('}').to_owned(),
            keys,
            settings,
            arrivals,
            link,
            before: None,
            held: Some(Vec::new()),
            opened: false,
            round: Round::default(),
            returned,
        };
        (reader, returns)
    }

    /// Reads until the link is given up. Returns whether it has begun to say `Up`.
    pub(super) async fn run(mut self, given_up: CancellationToken) -> bool {
        loop {
            let mut message = tokio::select! {
                biased;
                () = given_up.cancelled() => return self.opened,
                message = self.messages.next() => message,
            };
            if message.is_none() {
                return self.opened;
            }
            // What is there already is taken without waiting: each wait enters this task in two lists and takes it out again.
            let mut left = TOGETHER;
            while let Some(arrived) = message.filter(|_| !given_up.is_cancelled()) {
                if self.take(arrived) && given_up.run_until_cancelled(self.open()).await.is_none() {
                    return self.opened;
                }
                left -= 1;
                message = if left > 0 { self.messages.ready() } else { None };
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Hands over `Up` and what was held. Only here the reader may wait.
    async fn open(&mut self) {
        self.opened = true;
        self.arrivals.tell(BusEvent::Link(LinkChange::Up)).await;
        for event in self.held.take().unwrap_or_default() {
            self.push(event);
        }
        self.push(self.round.proof());
        self.returned.send_replace(self.round.number);
    }

    /// Whether the message was the probe that opens the link.
    fn take(&mut self, message: Message) -> bool {
        let Message { channel, by_pattern, payload } = message;
        let copy = by_pattern && self.before.as_ref().is_some_and(|(c, p)| *c == channel && *p == payload);
        self.before = (!by_pattern).then(|| (channel.clone(), payload.clone()));
        if copy {
            return false;
        }
        let Ok(channel) = std::str::from_utf8(&channel) else {
            self.arrivals.reject("bad-topic", &String::from_utf8_lossy(&channel), "its name is not UTF-8");
            return false;
        };
        if channel == self.control {
            self.order(&payload);
        } else if channel.starts_with(&self.probes) {
            return self.probe(&payload);
        } else {
            match self.read(channel, payload, by_pattern) {
                Ok(delivery) => self.push(BusEvent::Delivery(delivery)),
                Err((reason, detail)) => self.arrivals.reject(reason, channel, &detail),
            }
        }
        false
    }

    fn push(&mut self, event: BusEvent) {
        match (&mut self.held, event) {
            // `Up` makes every head be compared, which finds whatever does not fit here; orders are in Redis as well.
            (Some(held), event) if held.len() < QUEUE => held.push(event),
            (Some(_), _) => {}
            (None, BusEvent::Delivery(delivery)) => self.arrivals.deliver(delivery),
            (None, event) => self.arrivals.push(event),
        }
    }

    fn probe(&mut self, payload: &[u8]) -> bool {
        let Some((at, token)) = ProbeToken::parse(payload).filter(|(_, token)| token.link == self.link)
        else {
            return false;
        };
        if token.round != self.round.number {
            if token.round < self.round.number {
                return false;
            }
            self.round = Round { number: token.round, ..Round::default() };
        }
        if token.index == 0 {
            (self.round.at, self.round.asked) = (at, token.asked);
            self.settings.seal().redis_says(at);
        }
        self.round.back.insert(token.index);
        if self.round.back.len() < token.count {
            return false;
        }
        if self.held.is_some() {
            return true;
        }
        self.push(self.round.proof());
        self.returned.send_replace(token.round);
        false
    }

    fn order(&mut self, payload: &[u8]) {
        match read_order(payload, self.settings.seal()) {
            Ok(order) => self.push(BusEvent::Revoked { orders: vec![order], heard: Heard::AtOnce }),
            Err(error) => self.arrivals.reject("bad-order", &self.control, &error),
        }
    }

    /// A message on a topic's channel.
    fn read(&self, channel: &str, payload: Bytes, every: bool) -> Result<Delivery, (&'static str, String)> {
        let text = self.keys.topic(channel).unwrap_or(channel);
        let topic =
            Topic::parse_arrived(text, &self.settings.areas).map_err(|e| ("bad-topic", e.to_string()))?;
        if let Some(id) = message::erased(&payload) {
            return Ok(Delivery { topic, every, content: Content::Erased(id) });
        }
        let content = match message::read(payload, self.settings.event_bytes()) {
            (Some(id), Ok(event)) => Content::Recorded(id, event),
            (Some(id), Err(error)) => {
                self.arrivals.reject("recorded", channel, &error.to_string());
                Content::Invalid(id)
            }
            (None, Ok(_)) if self.settings.areas.is_recorded_only(topic.area()) => {
                return Err(("recorded-only", "areas.recorded_only: publish with the function".into()));
            }
            (None, Ok(event)) => Content::Live(event),
            (None, Err(error)) => return Err(("live", error.to_string())),
        };
        Ok(Delivery { topic, every, content })
    }
}
