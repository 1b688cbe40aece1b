//! The connections of a listener: how many are open, and whether each does anything.
//!
//! Each connection costs a file descriptor and some kilobytes. So their number is bounded, a connection without a request or without
//! progress ends, and a full node says that it is not ready, so that balancers choose another one.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

/// How long a node has to be full before it says that it is not ready.
const FULL_FOR: Duration = Duration::from_secs(3);

/// All connections of a listener, those among them that have become WebSockets.
#[derive(Debug)]
pub struct Connections {
    limit: usize,
    per_address: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    open: usize,
    addresses: HashMap<IpAddr, usize>,
    full_since: Option<Instant>,
}

impl Connections {
    /// No connection yet. `limit`, `per_address`: connections at the same time; 0: any number.
    pub fn new(limit: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { limit, per_address, inner: Mutex::default() })
    }

    /// Takes a connection in, or says which limit is reached.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, &'static str> {
        let mut inner = self.lock();
        if self.limit > 0 && inner.open >= self.limit {
            inner.full_since.get_or_insert_with(Instant::now);
            return Err("The node has as many connections as it may (limits.connections).");
        }
        if self.per_address > 0 {
            let count = inner.addresses.entry(address).or_default();
            if *count >= self.per_address {
                return Err(
                    "This address has as many connections as it may (limits.connections_per_address).",
                );
            }
            *count += 1;
        }
        inner.open += 1;
        Ok(ConnectionPermit { connections: Arc::clone(self), address })
    }

    /// A connection was refused for want of a file descriptor.
    pub(super) fn ran_out_of_files(&self) {
        self.lock().full_since.get_or_insert_with(Instant::now);
    }

    /// Why no more can come in, where that has been so for some seconds.
    pub(super) fn trouble(&self) -> Option<String> {
        let reason = self.full();
        let mut inner = self.lock();
        if reason.is_none() {
            inner.full_since = None;
            return None;
        }
        let since = *inner.full_since.get_or_insert_with(Instant::now);
        reason.filter(|_| since.elapsed() >= FULL_FOR)
    }

    fn full(&self) -> Option<String> {
        if self.limit > 0 && self.lock().open >= self.limit {
            return Some("the node has as many connections as it may (limits.connections)".into());
        }
        std::fs::File::open("/dev/null")
            .is_err()
            .then(|| "the node is at its limit of open files (ulimit -n)".into())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete before anything can fail.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address under which a connection is counted. An IPv6 host can use any address of its /64 network (RFC 4291, 2.5.4), so these
/// count as one.
pub(super) fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        IpAddr::V4(address) => address.into(),
    }
}

/// Counts one connection for as long as it lives.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut inner = self.connections.lock();
        inner.open -= 1;
        if let Some(count) = inner.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                inner.addresses.remove(&self.address);
            }
        }
    }
}

/// Whether a connection does anything.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<ActivityTimes>);

#[derive(Debug)]
struct ActivityTimes {
    begun: Instant,
    /// Requests whose answers have not ended.
    open: AtomicUsize,
    /// When a request came or an answer went on last, ms after `begun`.
    last: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(ActivityTimes {
            begun: Instant::now(),
            open: AtomicUsize::new(0),
            last: AtomicU64::new(0),
        }))
    }

    /// A request has come.
    pub(super) fn begin(&self) -> RequestInFlight {
        self.0.open.fetch_add(1, Relaxed);
        self.touch();
        RequestInFlight(self.clone())
    }

    /// Whether the connection can be closed: no request for longer than `idle`, or requests of whose answers nothing
    /// went out for longer than `stalled`.
    pub(super) fn is_over(&self, idle: Duration, stalled: Duration) -> bool {
        let silent = self.0.begun.elapsed().saturating_sub(Duration::from_millis(self.0.last.load(Relaxed)));
        silent >= if self.0.open.load(Relaxed) == 0 { idle } else { stalled }
    }

    fn touch(&self) {
        self.0.last.store(self.0.begun.elapsed().as_millis() as u64, Relaxed);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct RequestInFlight(Activity);

impl RequestInFlight {
    /// The answer's body, which ends the request.
    pub(super) fn answer(self, body: Body) -> Body {
        self.0.touch();
        Body::new(TrackedBody { body, request: self })
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Relaxed);
        self.0.touch();
    }
}

struct TrackedBody {
    body: Body,
    request: RequestInFlight,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut frame = self.body.frame();
        let polled = Pin::new(&mut frame).poll(cx);
        if polled.is_ready() {
            self.request.0.touch();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const AWAY: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    #[test]
    fn connections_are_limited_and_places_given_back() {
        let connections = Connections::new(3, 2);
        let first = connections.enter(HOME).unwrap();
        let _second = connections.enter(HOME).unwrap();
        assert!(connections.enter(HOME).is_err_and(|why| why.contains("per_address")), "enough from there");
        let third = connections.enter(AWAY).unwrap();
        assert!(connections.enter(AWAY).is_err_and(|why| why.contains("limits.connections)")), "enough");
        assert_eq!(connections.trouble(), None, "it has only begun");
        connections.lock().full_since = Instant::now().checked_sub(FULL_FOR);
        assert!(connections.trouble().unwrap().contains("limits.connections"));
        drop((first, third));
        assert_eq!(connections.trouble(), None);
        assert!(connections.enter(HOME).is_ok());
    }

    #[test]
    fn a_connection_without_requests_or_progress_is_over() {
        let (none, long) = (Duration::ZERO, Duration::from_hours(1));
        let activity = Activity::new();
        assert!(activity.is_over(none, long) && !activity.is_over(long, none));
        let request = activity.begin();
        assert!(activity.is_over(long, none) && !activity.is_over(none, long));
        let body = request.answer(Body::from("x"));
        assert!(!activity.is_over(none, long), "an answer that is being written");
        drop(body);
        assert!(activity.is_over(none, long));
    }

    #[test]
    fn an_ipv6_network_counts_once_and_an_ipv4_address_by_itself() {
        let counted_address = |text: &str| counted_address(text.parse().unwrap()).to_string();
        assert_eq!(
            counted_address("2001:db8:1:2:aaaa::1"),
            counted_address("2001:db8:1:2:ffff:ffff:ffff:ffff")
        );
        assert_ne!(counted_address("2001:db8:1:2::1"), counted_address("2001:db8:1:3::1"));
        assert_ne!(counted_address("5.6.7.8"), counted_address("5.6.7.9"));
        assert_eq!(counted_address("::ffff:5.6.7.8"), "5.6.7.8");
    }
}
