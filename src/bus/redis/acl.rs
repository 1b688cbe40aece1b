//! The rights that a publisher and a node need in Redis, and no more.
//!
//! Redis checks what a function does against the rights of its caller, so whoever may publish may do what publishing does,
//! by hand as well: that is what these lines keep small. A publisher reaches the logs, channels and ids of its areas and
//! nothing that nodes keep; which command may touch which of them is said by a selector for each.

use std::fmt::Write as _;

use crate::bus::Settings;

/// What the functions do with logs on behalf of publishers ...
const PUBLISHED: [&str; 8] =
    ["getrange", "set", "del", "xadd", "xrevrange", "xinfo|stream", "pttl", "pexpire"];
/// ... with logs and ids together ...
const BOTH: [&str; 1] = ["exists"];
/// ... with the ids of events that were seen ...
const SEEN: [&str; 5] = ["hget", "hmget", "hset", "del", "pexpireat"];
/// ... and with the sources that are vouched for.
const VOUCHED: [&str; 6] = ["hget", "hset", "hdel", "hlen", "hgetall", "pexpire"];
/// What they do on behalf of nodes besides all that.
const FOLLOWED: [&str; 1] = ["xrange"];
/// What stands behind no key.
const SERVER: [&str; 2] = ["time", "info"];

/// Two `ACL SETUSER` lines, for a publisher and for a node, with placeholders for the passwords; nothing else, so that
/// they can go straight to `redis-cli`. The publisher is one of `areas`, which are configured ones.
pub fn acl(settings: &Settings, areas: &[String]) -> String {
    format!("{}\n{}\n", publisher(settings, areas), node(settings))
}

fn rights(commands: &[&str]) -> String {
    commands.iter().fold(String::new(), |mut text, command| {
        let _ = write!(text, " +{command}");
        text
    })
}

/// Whether it is a cluster, where pub/sub is sharded.
pub(super) fn is_sharded(settings: &Settings) -> bool {
    settings.redis.as_ref().is_some_and(super::Target::is_sharded)
}

fn publish(settings: &Settings) -> &'static str {
    if is_sharded(settings) { "spublish" } else { "publish" }
}

fn publisher(settings: &Settings, areas: &[String]) -> String {
    let prefix = &settings.prefix;
    let (mut channels, mut logs, mut ids) = (String::new(), String::new(), String::new());
    for area in areas {
        let _ = write!(channels, " &{prefix}:{area} &{prefix}:{area}:*");
        let _ = write!(logs, " ~{prefix}:{area} ~{prefix}:{area}:*");
        for hash in ["ids", "ids-before"] {
            let _ =
                write!(ids, " ~{prefix}:{hash}:{{{prefix}:{area}}} ~{prefix}:{hash}:{{{prefix}:{area}:*}}");
        }
    }
    let cluster = if is_sharded(settings) {
        " +cluster|slots +cluster|shards +cluster|info +command +asking"
    } else {
        ""
    };
    format!(
        "ACL SETUSER {prefix}-publisher on >CHANGE-ME clearselectors resetkeys resetchannels{channels} -@all +{}{} \
         +hello +auth +ping +select +client|setname{cluster} (-@all{logs}{ids} +fcall{}) (-@all{logs}{}) (-@all{ids}{}) \
         (-@all ~{prefix}:sources +fcall{})",
        publish(settings),
        rights(&SERVER),
        rights(&BOTH),
        rights(&PUBLISHED),
        rights(&SEEN),
        rights(&VOUCHED),
    )
}

/// What the functions do on behalf of nodes.
pub(super) fn of_functions() -> Vec<&'static str> {
    let mut commands = [&PUBLISHED[..], &BOTH, &SEEN, &VOUCHED, &FOLLOWED, &SERVER].concat();
    commands.sort_unstable();
    commands.dedup();
    commands
}

/// The commands that a node needs besides those without which it could not ask.
pub(super) fn needed(settings: &Settings) -> Vec<&'static str> {
    let mut commands = of_functions();
    commands.extend([publish(settings), "ping"]);
    commands
}

fn node(settings: &Settings) -> String {
    let prefix = &settings.prefix;
    let subscribe = if is_sharded(settings) {
        "+ssubscribe +sunsubscribe +cluster|slots +asking"
    } else {
        "+subscribe +unsubscribe +psubscribe +punsubscribe"
    };
    // Redis compares patterns with what is allowed to the letter.
    let mut patterns = String::new();
    for area in settings.areas.names() {
        let _ = write!(patterns, " &{prefix}:{area}:*");
    }
    format!(
        "ACL SETUSER {prefix}-node on >CHANGE-ME clearselectors resetkeys ~{prefix}:* resetchannels &{prefix}:*{patterns} \
         -@all +fcall{} +{} +function|load {subscribe} +hello +auth +ping +select +client|id +client|info",
        rights(&of_functions()),
        publish(settings),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_command_of_the_library_is_allowed_and_no_other() {
        let texts = [
            include_str!("../publish.lua"),
            include_str!("../logs.lua"),
            include_str!("../forget.lua"),
            include_str!("../nodes.lua"),
            include_str!("../sources.lua"),
            include_str!("../check.lua"),
        ];
        let mut used = BTreeSet::new();
        for call in texts.iter().flat_map(|text| text.split("call('").chain(text.split("try('")).skip(1)) {
            let mut words = call.split('\'');
            let name = words.next().unwrap_or_default().to_lowercase();
            if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase()) {
                let sub = words.nth(1).unwrap_or_default().to_lowercase();
                used.insert(if name == "xinfo" { format!("{name}|{sub}") } else { name });
            }
        }
        let lists = [&PUBLISHED[..], &BOTH, &SEEN, &VOUCHED, &FOLLOWED, &SERVER].concat();
        let allowed = lists.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(used, allowed);
    }
}
