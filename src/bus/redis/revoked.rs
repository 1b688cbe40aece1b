//! What operators have revoked, as Redis keeps it: a hash that no node needs a function for, and the order that tells
//! every node at once.
//!
//! A field is the name of a revocation, its value the time of the order (ms, on the clock of the node that took it). The
//! field `change` has a random number, another with every change, so that a look at one field shows whether a node has
//! read everything: whatever messages were lost, and whichever clock was set. What a node knows and Redis has lost (it
//! was emptied, or is another one) is written back. Where nodes have a secret (`redis.node_secret`), an order and what is
//! kept of it are signed.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use serde::Deserialize;

use super::{commands::CommandClient, connection::PATIENCE, fault::Fault, reply, seal::Seal};
use crate::protocol::{Kind, Revocation, Whom, revocation::Comparison, time::now_ms};

/// The field that is another after every change.
const CHANGE: &str = "change";
/// Fields in one command.
const FIELDS: usize = 500;

/// An order on the control channel.
#[derive(Debug, Deserialize)]
struct Order {
    /// An editor, as in the token's `sub`.
    disconnect: Option<String>,
    /// Any other revocation, by its name.
    revoke: Option<String>,
    /// When, ms; nodes of before did not say.
    at: Option<u64>,
    /// The [`Seal`] of the node that says it.
    signed: Option<String>,
}

/// What an order is sealed as.
const ORDER: &str = "order";
/// What is kept of it.
const KEPT: &str = "revocation";

/// What is signed of an order.
fn words(revocation: &Revocation) -> String {
    format!("{} {}", revocation.at, revocation.name())
}

/// Reads an order.
pub(super) fn read_order(message: &[u8], seal: &Seal) -> Result<Revocation, String> {
    let order: Order = serde_json::from_slice(message).map_err(|error| error.to_string())?;
    let at = order.at.unwrap_or_else(now_ms);
    let revocation = match (order.disconnect, order.revoke) {
        (Some(user), _) => Some(Revocation { kind: Kind::Disconnect, whom: Whom::User(user), at }),
        (None, name) => name.and_then(|name| Revocation::parse(&name, at)),
    };
    let revocation = revocation.ok_or("an unknown order")?;
    seal.hear(ORDER, &words(&revocation), order.signed.as_deref()).map_err(|broken| broken.to_string())?;
    Ok(revocation)
}

/// Writes an order: in the words of before where those will do, so that older nodes obey it too.
fn order(revocation: &Revocation, seal: &Seal) -> Bytes {
    let at = revocation.at;
    let mut order = match revocation {
        Revocation { kind: Kind::Disconnect, whom: Whom::User(user), .. } => {
            serde_json::json!({ "disconnect": user, "at": at })
        }
        other => serde_json::json!({ "revoke": other.name(), "at": at }),
    };
    if let Some(signed) = seal.sign(ORDER, &words(revocation)) {
        order["signed"] = signed.into();
    }
    Bytes::from(order.to_string())
}

impl CommandClient {
    /// Revokes as of now: kept first, then told.
    pub(super) async fn revoke(&self, kind: Kind, whom: Whom, timeout: Duration) -> Result<u64, Fault> {
        let at = self.settings().revocations.next(kind, &whom, now_ms());
        let revocation = Revocation { kind, whom, at };
        self.keep(std::slice::from_ref(&revocation)).await?;
        self.send(&self.keys().control(), order(&revocation, self.seal()), timeout).await?;
        Ok(at)
    }

    async fn keep(&self, revocations: &[Revocation]) -> Result<(), Fault> {
        let key = self.keys().revocations();
        for piece in revocations.chunks(FIELDS) {
            // In one command: nobody reads one without the other. 0 stands for none.
            let change = rand::random_range(1..=u64::MAX);
            let mut args = vec![key.as_str().into(), CHANGE.into(), change.to_string().into()];
            for revocation in piece {
                let signed = self.seal().keep(KEPT, &words(revocation));
                let value = signed.map_or(revocation.at.to_string(), |s| format!("{} {s}", revocation.at));
                args.extend([revocation.name().into(), value.into()]);
            }
            self.connection().command("HSET", &key, args, PATIENCE).await?;
        }
        let life = self.settings().revocations.window().as_millis() as i64;
        self.connection().command("PEXPIRE", &key, vec![key.as_str().into(), life.into()], PATIENCE).await?;
        Ok(())
    }

    /// Returns the revocations that Redis has, and writes back those that it has lost. `all`: even if nothing has changed since this
    /// client read them.
    pub(super) async fn compare_revocations(&self, all: bool) -> Result<Vec<Revocation>, Fault> {
        let (known, key) = (self.settings().revocations.clone(), self.keys().revocations());
        let args = vec![key.as_str().into(), CHANGE.into()];
        let change = self.connection().command("HGET", &key, args, PATIENCE).await?;
        let change = reply::text(change).parse().unwrap_or(0);
        if !all && !known.must_compare(change, self.revocations_read.load(Relaxed)) {
            return Ok(Vec::new());
        }
        let StoredRevocations { change, orders, over, unsigned } =
            self.read_revocations(known.window()).await?;
        let Comparison { unknown, mut lost } = known.compare(&orders);
        lost.extend(unsigned);
        let written = async {
            if !lost.is_empty() {
                self.keep(&lost).await?;
            }
            self.remove(&over).await
        };
        let written = written.await;
        match written {
            // What was written makes for another look, which finds nothing more to write.
            Ok(()) => self.revocations_read.store(change, Relaxed),
            // It takes no writes now; the next look tries again.
            Err(Fault::NoWrites(_) | Fault::Refused(_)) => self.revocations_read.store(0, Relaxed),
            Err(fault) => return Err(fault),
        }
        Ok(unknown)
    }

    /// Removes what is over.
    async fn remove(&self, names: &[String]) -> Result<(), Fault> {
        let key = self.keys().revocations();
        for piece in names.chunks(FIELDS) {
            let mut args = vec![key.as_str().into()];
            args.extend(piece.iter().map(|name| name.as_str().into()));
            self.connection().command("HDEL", &key, args, PATIENCE).await?;
        }
        Ok(())
    }

    async fn read_revocations(&self, window: Duration) -> Result<StoredRevocations, Fault> {
        let key = self.keys().revocations();
        let fields = self.connection().command("HGETALL", &key, vec![key.as_str().into()], PATIENCE).await?;
        let window = window.as_millis() as u64;
        let first = now_ms().saturating_sub(window);
        let mut kept = StoredRevocations::default();
        for (name, value) in reply::pairs(fields) {
            let (number, signed) =
                value.split_once(' ').map_or((value.as_str(), None), |(n, s)| (n, Some(s)));
            let Ok(number) = number.parse::<u64>() else { continue };
            if name == CHANGE {
                kept.change = number;
            } else if let Some(order) = Revocation::parse(&name, number) {
                if number >= first {
                    self.take_kept(order, signed, &mut kept);
                } else if number < first.saturating_sub(window) {
                    // Later than it could be: this node's clock may be ahead of others, to which it still matters.
                    kept.over.push(name);
                }
            }
        }
        Ok(kept)
    }

    /// Takes an order that a node has signed; an unsigned one only while signatures are being introduced.
    fn take_kept(&self, order: Revocation, signed: Option<&str>, kept: &mut StoredRevocations) {
        if let Err(broken) = self.seal().is_kept(KEPT, &words(&order), signed) {
            tracing::warn!(order = order.name(), "a revocation in Redis is not counted: {broken}");
            return;
        }
        if self.seal().is_set() && signed.is_none() {
            kept.unsigned.push(order.clone());
        }
        kept.orders.push(order);
    }
}

/// All that Redis keeps.
#[derive(Debug, Default)]
struct StoredRevocations {
    /// The number of the last change; 0 without any.
    change: u64,
    /// What may still concern somebody.
    orders: Vec<Revocation>,
    /// The names of what concerns nobody any more.
    over: Vec<String>,
    /// Those among the orders that have yet to be signed.
    unsigned: Vec<Revocation>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seals() -> [Seal; 2] {
        let seal = Seal::new("carillon", "a node's secret of 32 bytes or more", None, true);
        seal.redis_says(now_ms());
        [Seal::default(), seal]
    }

    #[test]
    fn orders_are_read_as_they_are_written_and_as_older_nodes_write_them() {
        for seal in seals() {
            for whom in [Whom::User("a \"b\" ü".into()), Whom::Session("x".into()), Whom::Token("y z".into())]
            {
                for kind in [Kind::Disconnect, Kind::Refresh] {
                    let written = Revocation { kind, whom: whom.clone(), at: 7 };
                    let order = order(&written, &seal);
                    assert_eq!(
                        read_order(&order, &Seal::default()),
                        Ok(written.clone()),
                        "of an older release"
                    );
                    assert_eq!(read_order(&order, &seal), Ok(written));
                    assert_eq!(read_order(&order, &seal).is_err(), seal.is_set(), "a second time");
                }
            }
        }
        let old = read_order(br#"{"disconnect":"anna"}"#, &Seal::default()).unwrap();
        assert_eq!((old.kind, old.whom), (Kind::Disconnect, Whom::User("anna".into())));
        for bad in [&b"{}"[..], b"x", br#"{"revoke":"x"}"#] {
            assert!(read_order(bad, &Seal::default()).is_err());
        }
        let [_, seal] = seals();
        assert!(read_order(br#"{"disconnect":"anna"}"#, &seal).unwrap_err().contains("redis.node_secret"));
    }
}
