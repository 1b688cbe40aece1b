//! The rights that a publisher and a node need in Redis, and no more.
//!
//! Must not know connections. What these lines allow is what the tests run with.

use crate::bus::Settings;

/// Two `ACL SETUSER` lines, for a publisher and for a node, with placeholders for the passwords; nothing else, so that
/// they can go straight to `redis-cli`.
pub fn acl(settings: &Settings) -> String {
    let prefix = &settings.prefix;
    let sharded = settings.redis.as_ref().is_some_and(super::Target::is_sharded);
    let publish = if sharded { "+spublish" } else { "+publish" };
    // What the publish function does is done with the caller's rights.
    let function = "+fcall +time +get +set +del +xadd +xrevrange +xinfo|stream +pttl +pexpire +pexpireat +hget +hmget \
                    +hset";
    let subscribe = if sharded {
        "+ssubscribe +sunsubscribe +cluster|slots +asking"
    } else {
        "+subscribe +unsubscribe +psubscribe +punsubscribe"
    };
    // Redis compares patterns with what is allowed to the letter.
    let mut patterns = String::new();
    for area in settings.areas.names() {
        patterns.extend([" &", prefix, ":", area, ":*"]);
    }
    let connect = "+hello +auth +ping +select +client|id +client|info +info";
    format!(
        "ACL SETUSER {prefix}-publisher on >CHANGE-ME resetkeys ~{prefix}:* resetchannels &{prefix}:* -@all \
         {function} {publish} +hello +auth +ping +select +client|setname{}\n\
         ACL SETUSER {prefix}-node on >CHANGE-ME resetkeys ~{prefix}:* resetchannels &{prefix}:*{patterns} -@all \
         {function} {publish} +function|load +hgetall +hdel +xrange {subscribe} {connect}\n",
        if sharded { " +cluster|slots +cluster|shards +cluster|info +command +asking" } else { "" },
    )
}
