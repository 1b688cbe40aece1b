//! The canary: an event that the node sends itself every few seconds, by the whole way that an editor's events go.
//!
//! It is published with the function, comes back from Redis by pub/sub, passes feed, hub and outbox, and is read from the
//! other end of a real socket. So an operator knows that events arrive, and how soon, while nobody works. The topic is the
//! node's own; no client and no publisher can name it.

use std::{
    io,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, timeout},
};

use crate::{
    bus::Bus,
    hub::{Notice, Outbox},
    metrics::Metrics,
    protocol::{Event, Proof, Subject, Topic, message::Welcome, time::now_ms},
    relay::{Relay, Request},
};

/// How long one may take; then it is lost, and the next one gets a session of its own.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that may wait in the outbox, and that are kept of what was read.
const ROOM: usize = 1 << 16;

/// What sends canaries.
#[derive(Debug)]
pub struct Canary {
    /// How events get to Redis.
    pub bus: Bus,
    /// How they get from there to sessions.
    pub relay: Relay,
    /// Where it is told.
    pub metrics: Metrics,
    /// The node's name.
    pub node: String,
    /// `telemetry.canary_seconds`.
    pub interval: Duration,
}

/// A session on this machine, with both ends of its socket.
struct CanarySession {
    outbox: Arc<Outbox>,
    far: TcpStream,
}

impl Canary {
    /// Sends one in each interval, until the node ends.
    pub async fn run(self) {
        self.metrics.canary().begin();
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut session: Option<CanarySession> = None;
        for number in 1_u64.. {
            ticks.tick().await;
            let sent = timeout(PATIENCE, self.send_one(&mut session, number)).await;
            let why = match sent {
                Ok(Ok(())) => continue,
                Ok(Err(why)) => why.to_string(),
                Err(_) => format!("it did not come within {} s", PATIENCE.as_secs()),
            };
            tracing::debug!("a canary was lost: {why}");
            if let Some(session) = session.take() {
                self.relay.leave(&session.outbox).await;
            }
        }
    }

    async fn send_one(&self, session: &mut Option<CanarySession>, number: u64) -> io::Result<()> {
        let session = match session {
            Some(session) => session,
            None => session.insert(self.open_session().await?),
        };
        let mark = format!("{}-{number}", now_ms());
        let json = format!(r#"{{"type":"canary.sent","data":"{mark}"}}"#);
        let event = Event::parse(Bytes::from(json), ROOM).map_err(io::Error::other)?;
        let begun = Instant::now();
        let sent = async {
            self.bus.publish(Topic::canary(&self.node), event).await.map_err(io::Error::other)?;
            std::future::pending::<io::Result<()>>().await
        };
        // It may arrive before Redis' answer does.
        tokio::select! {
            lost = sent => return lost,
            seen = session.watch(&self.relay, mark.as_bytes()) => seen?,
        }
        let took = begun.elapsed();
        self.metrics.canary_latency.observe(took.as_secs_f64());
        self.metrics.canary().came(took);
        Ok(())
    }

    /// A session that follows the canary's topic.
    async fn open_session(&self) -> io::Result<CanarySession> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let far = TcpStream::connect(listener.local_addr()?).await?;
        let near = loop {
            let (near, from) = listener.accept().await?;
            // Somebody else may have been quicker.
            if from == far.local_addr()? {
                break near;
            }
        };
        near.set_nodelay(true)?;
        let outbox = Outbox::direct(near, ROOM);
        let welcome = Welcome { node: self.node.clone(), ..Welcome::default() };
        let topic = Subject::Topic(Topic::canary(&self.node));
        let request = Request { subjects: vec![topic], ..Request::default() };
        let proof = Arc::new(Proof::lasting(""));
        self.relay.connect(&outbox, Box::new(welcome), proof, request).await;
        let mut session = CanarySession { outbox, far };
        session.watch(&self.relay, br#""type":"welcome""#).await?;
        Ok(session)
    }
}

impl CanarySession {
    /// Reads until this is in what the session was sent.
    async fn watch(&mut self, relay: &Relay, mark: &[u8]) -> io::Result<()> {
        let mut read = Vec::new();
        loop {
            tokio::select! {
                count = self.far.read_buf(&mut read) => {
                    if count? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    if read.windows(mark.len()).any(|part| part == mark) {
                        return Ok(());
                    }
                    if read.len() > ROOM {
                        read.drain(..ROOM / 2);
                    }
                }
                notice = self.outbox.notice() => match notice {
                    Notice::Work => self.outbox.unblock(),
                    Notice::Drained => relay.drained(&self.outbox).await,
                    Notice::Closing(_) | Notice::Broken => return Err(io::ErrorKind::NotConnected.into()),
                },
            }
        }
    }
}
