//! Whether this user has the rights that a node needs, found out before anything depends on one.
//!
//! Redis looks at rights before it does anything, so each command is sent in a form that changes nothing.

use std::collections::BTreeSet;

use fred::{prelude::Error, types::Value};
use futures_util::future::join_all;

use super::{
    acl,
    connection::{Connection, PATIENCE, Subscriber, SubscriptionChange},
    fault::{ConnectError, describe, is_trouble},
};
use crate::bus::{Settings, keys::Keys};

/// What stands in the way of a node.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Rights, in the words of `ACL SETUSER`.
    rights: BTreeSet<String>,
    /// The pattern of all names under the prefix.
    all: String,
    /// What Redis says of a command that it does not have.
    command: Option<String>,
}

impl Missing {
    /// A sentence about Redis at `place`, where there is something to say.
    pub(super) fn connect_error(&self, place: &str) -> Option<ConnectError> {
        if let Some(text) = &self.command {
            return Some(ConnectError::missing_command(text, place));
        }
        let rights = self.rights.iter().map(String::as_str).collect::<Vec<_>>();
        (!rights.is_empty()).then(|| ConnectError::missing_rights(&rights.join(" "), place))
    }
}

/// What is missing. Only trouble with a connection is an error.
pub(super) async fn missing(
    commands: &Connection,
    subscriber: &Connection<Subscriber>,
    settings: &Settings,
) -> Result<Missing, Error> {
    let key = &Keys::new(&settings.prefix).probe("rights");
    let asked = acl::needed(settings).into_iter().filter_map(|right| Some((right, harmless(right, key)?)));
    let asked = asked.map(|(right, args)| async move {
        let name = right.split('|').next().unwrap_or(right);
        (right, commands.command(name, key, args, PATIENCE).await.err())
    });
    let mut missing = Missing { all: Keys::new(&settings.prefix).all(), ..Missing::default() };
    for (right, error) in join_all(asked).await {
        note(&mut missing, right, error)?;
    }
    // The hash has served its purpose.
    let _ = commands.command("del", key, vec![key.as_str().into()], PATIENCE).await;
    if missing.connect_error("").is_some() {
        // Without PING nothing else could be found out.
        return Ok(missing);
    }
    let (right, change) = if acl::is_sharded(settings) {
        ("sunsubscribe", SubscriptionChange::UnsubscribeShards)
    } else {
        ("unsubscribe", SubscriptionChange::Unsubscribe)
    };
    let socket = match commands.layout().owner(key) {
        Some(server) => subscriber.socket(&server).await?,
        None => return Ok(missing),
    };
    note(&mut missing, right, socket.confirmed(change, std::slice::from_ref(key)).await.err())?;
    if !acl::is_sharded(settings) {
        let error =
            socket.confirmed(SubscriptionChange::UnsubscribePatterns, std::slice::from_ref(key)).await.err();
        note(&mut missing, "punsubscribe", error)?;
    }
    Ok(missing)
}

fn note(missing: &mut Missing, right: &str, error: Option<Error>) -> Result<(), Error> {
    let Some(error) = error else { return Ok(()) };
    let text = describe(&error);
    if is_trouble(&error) && !text.contains("unknown command") {
        return Err(error);
    }
    if text.starts_with("NOPERM") {
        let denied = |what| text.contains("access") && text.contains(what);
        missing.rights.insert(match () {
            () if denied("channel") => format!("&{}", missing.all),
            () if denied("key") => format!("~{}", missing.all),
            () => format!("+{right}"),
        });
    } else if text.contains("unknown command") {
        missing.command = Some(text);
    }
    Ok(())
}

/// The arguments with which a command changes nothing but the hash `key`; `None` where it is not asked for here.
fn harmless(right: &str, key: &str) -> Option<Vec<Value>> {
    let rest: &[&str] = match right {
        "xinfo|stream" => return Some(vec!["STREAM".into(), key.into()]),
        "time" => return Some(Vec::new()),
        "ping" | "del" | "exists" | "pttl" | "hgetall" | "hlen" => &[],
        "getrange" => &["0", "0"],
        "set" => &["", "XX", "GET"],
        "xadd" => &["NOMKSTREAM", "*", "", ""],
        "xrange" => &["-", "+", "COUNT", "1"],
        "xrevrange" => &["+", "-", "COUNT", "1"],
        "pexpire" | "pexpireat" => &["9", "XX"],
        "publish" | "spublish" | "hget" | "hmget" | "hdel" => &["?"],
        "hset" => &["", ""],
        _ => return None,
    };
    Some(std::iter::once(key).chain(rest.iter().copied()).map(Value::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_right_of_the_functions_is_asked_for() {
        for right in acl::of_functions() {
            let elsewhere = right == "info";
            assert!(elsewhere || harmless(right, "k").is_some(), "{right}");
        }
    }
}
