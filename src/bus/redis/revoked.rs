//! What operators have revoked, as Redis keeps it: a hash that no node needs a function for, and the order that tells
//! every node at once.
//!
//! A field is the name of a revocation, its value the time of the order (ms of Redis' clock); the field `latest` has the
//! latest time, so that a look at one field shows whether a node knows everything. What a node knows and Redis has lost
//! (it was emptied, or is another one) is written back. Must not know who is concerned.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use super::{connection::PATIENCE, fault::Fault, line::Line, reply};
use crate::protocol::{Kind, Revocation, Revocations, Whom, time::now_ms};

/// The field with the time of the latest order.
const LATEST: &str = "latest";
/// Fields in one command.
const FIELDS: usize = 500;

/// An order on the control channel.
#[derive(Debug, Deserialize)]
struct Order {
    /// An editor, as in the token's `sub`.
    disconnect: Option<String>,
    /// Any other revocation, by its name.
    revoke: Option<String>,
    /// When, ms of Redis' clock; nodes of before did not say.
    at: Option<u64>,
}

/// Reads an order.
pub(super) fn read_order(message: &[u8]) -> Result<Revocation, String> {
    let order: Order = serde_json::from_slice(message).map_err(|error| error.to_string())?;
    let at = order.at.unwrap_or_else(now_ms);
    if let Some(user) = order.disconnect {
        return Ok(Revocation { kind: Kind::Disconnect, whom: Whom::User(user), at });
    }
    order.revoke.and_then(|name| Revocation::parse(&name, at)).ok_or_else(|| "an unknown order".into())
}

/// Writes an order: in the words of before where those will do, so that older nodes obey it too.
fn order(revocation: &Revocation) -> Bytes {
    let at = revocation.at;
    let order = match revocation {
        Revocation { kind: Kind::Disconnect, whom: Whom::User(user), .. } => {
            serde_json::json!({ "disconnect": user, "at": at })
        }
        other => serde_json::json!({ "revoke": other.name(), "at": at }),
    };
    Bytes::from(order.to_string())
}

impl Line {
    /// Revokes as of now: kept first, then told.
    pub(super) async fn revoke(&self, kind: Kind, whom: Whom, timeout: Duration) -> Result<u64, Fault> {
        let at = self.clock().await?;
        let revocation = Revocation { kind, whom, at };
        self.keep(std::slice::from_ref(&revocation)).await?;
        self.send(&self.keys().control(), order(&revocation), timeout).await?;
        Ok(at)
    }

    /// Redis' clock, ms.
    async fn clock(&self) -> Result<u64, Fault> {
        let time =
            self.connection().command("TIME", &self.keys().revocations(), Vec::new(), PATIENCE).await?;
        let mut parts = reply::items(time).into_iter().map(|part| reply::text(part).parse().unwrap_or(0));
        let (seconds, micros) = (parts.next().unwrap_or(0_u64), parts.next().unwrap_or(0_u64));
        Ok(seconds * 1000 + micros / 1000)
    }

    async fn keep(&self, revocations: &[Revocation]) -> Result<(), Fault> {
        let key = self.keys().revocations();
        for piece in revocations.chunks(FIELDS) {
            let mut args = vec![key.as_str().into()];
            for revocation in piece {
                args.extend([revocation.name().into(), revocation.at.to_string().into()]);
            }
            self.connection().command("HSET", &key, args, PATIENCE).await?;
        }
        let kept = self.newest().await?;
        if let Some(newest) = revocations.iter().map(|revocation| revocation.at).max().filter(|at| *at > kept)
        {
            let args = vec![key.as_str().into(), LATEST.into(), newest.to_string().into()];
            self.connection().command("HSET", &key, args, PATIENCE).await?;
        }
        let life = self.settings().revocations.window().as_millis() as i64;
        self.connection().command("PEXPIRE", &key, vec![key.as_str().into(), life.into()], PATIENCE).await?;
        Ok(())
    }

    /// When the latest order was given, as Redis has it; 0 without any.
    async fn newest(&self) -> Result<u64, Fault> {
        let key = self.keys().revocations();
        let args = vec![key.as_str().into(), LATEST.into()];
        let latest = self.connection().command("HGET", &key, args, PATIENCE).await?;
        Ok(reply::text(latest).parse().unwrap_or(0))
    }

    /// What Redis has and this node does not know; and what Redis has lost is written back. `all`: whatever the latest
    /// order is.
    pub(super) async fn compare_revocations(&self, all: bool) -> Result<Vec<Revocation>, Fault> {
        let known = self.settings().revocations.clone();
        let latest = self.newest().await?;
        if !all && latest == known.newest() {
            return Ok(Vec::new());
        }
        let (kept, over) = self.read_revocations(&known).await?;
        let key = self.keys().revocations();
        for piece in over.chunks(FIELDS) {
            let mut args = vec![key.as_str().into()];
            args.extend(piece.iter().map(|name| name.as_str().into()));
            self.connection().command("HDEL", &key, args, PATIENCE).await?;
        }
        let lost: Vec<_> = known.all().into_iter().filter(|mine| !has(&kept, mine)).collect();
        if !lost.is_empty() {
            match self.keep(&lost).await {
                // It takes no writes now; the next look tries again.
                Err(Fault::NoWrites(_) | Fault::Refused(_)) => {}
                done => done?,
            }
        }
        Ok(kept.into_iter().filter(|theirs| !known.knows(theirs)).collect())
    }

    /// All that Redis keeps, and the names of what concerns nothing any more.
    async fn read_revocations(&self, known: &Revocations) -> Result<(Vec<Revocation>, Vec<String>), Fault> {
        let key = self.keys().revocations();
        let fields = self.connection().command("HGETALL", &key, vec![key.as_str().into()], PATIENCE).await?;
        let first = self.clock().await?.saturating_sub(known.window().as_millis() as u64);
        let (mut kept, mut over) = (Vec::new(), Vec::new());
        for (name, at) in reply::pairs(fields).into_iter().filter(|(name, _)| name != LATEST) {
            match at.parse().ok().filter(|at| *at >= first).and_then(|at| Revocation::parse(&name, at)) {
                Some(revocation) => kept.push(revocation),
                None => over.push(name),
            }
        }
        Ok((kept, over))
    }
}

fn has(kept: &[Revocation], mine: &Revocation) -> bool {
    kept.iter().any(|theirs| theirs.kind == mine.kind && theirs.whom == mine.whom && theirs.at >= mine.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written_and_as_older_nodes_write_them() {
        for whom in [Whom::User("a \"b\" ü".into()), Whom::Session("x".into()), Whom::Token("y z".into())] {
            for kind in [Kind::Disconnect, Kind::Refresh] {
                let written = Revocation { kind, whom: whom.clone(), at: 7 };
                assert_eq!(read_order(&order(&written)), Ok(written));
            }
        }
        let old = read_order(br#"{"disconnect":"anna"}"#).unwrap();
        assert_eq!((old.kind, old.whom), (Kind::Disconnect, Whom::User("anna".into())));
        assert!(
            read_order(b"{}").is_err()
                && read_order(b"x").is_err()
                && read_order(br#"{"revoke":"x"}"#).is_err()
        );
    }
}
