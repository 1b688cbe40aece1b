//! What the publish function does when the keys that it knows have gone, or a right with them.

use std::process::Command;

use crate::support::{
    bus::{TestBus, numbered, topic},
    redis::RedisServer,
};

const LOG: &str = "carillon:comments:1";

#[tokio::test]
async fn the_first_event_after_a_log_was_erased_leaves_no_log_that_lives_for_ever() {
    let redis = RedisServer::start();
    let bus = TestBus::over(&redis.url()).await;
    bus.bus.publish(topic("comments:1"), numbered(1)).await.unwrap();
    redis.command(&["FCALL", "carillon_forget", "1", LOG]);
    bus.bus.publish(topic("comments:1"), numbered(2)).await.unwrap();
    assert_eq!(redis.command(&["XLEN", LOG]).trim(), "1");
    let life = redis.command(&["PTTL", LOG]).trim().parse::<i64>().unwrap();
    assert!(life > i64::try_from(bus.settings.log_ttl.as_millis()).unwrap(), "{life} ms");
    bus.end().await;
}

#[tokio::test]
async fn a_right_that_is_missed_only_now_and_then_is_missed_before_anything_is_recorded() {
    let redis = RedisServer::start();
    let bus = TestBus::over(&redis.url()).await;
    let port = redis.port().to_string();
    let publish = |id: &str| {
        let event = format!(r#"{{"type":"a.b","id":"{id}"}}"#);
        let login = ["-p", &port, "--user", "poor", "--pass", "pw", "--no-auth-warning"];
        let call = ["FCALL", "carillon_publish", "1", LOG, &event];
        let output = Command::new("redis-cli").args(login).args(call).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for right in ["pexpireat", "pexpire"] {
        redis.command(&["ACL", "SETUSER", "poor", "reset", "on", ">pw", "~*", "&*", "+@all"]);
        assert!(publish(&format!("{right} 1")).ends_with("-1"));
        redis.command(&["ACL", "SETUSER", "poor", &format!("-{right}")]);
        // The names of its events are gone, or its log is not a stream any more.
        redis.command(&[
            "DEL",
            LOG,
            "carillon:ids:{carillon:comments:1}",
            "carillon:ids-before:{carillon:comments:1}",
        ]);
        redis.command(&["SET", LOG, "1999999999999", "PX", "999999999"]);
        let answer = publish(&format!("{right} 2"));
        assert!(answer.contains("NOPERM") && answer.contains(right), "{right}: {answer}");
        assert_eq!(redis.command(&["GET", LOG]).trim(), "1999999999999");
        redis.command(&["DEL", LOG]);
    }
    bus.end().await;
}

#[tokio::test]
async fn an_event_of_many_lists_keeps_the_name_that_it_has() {
    let redis = RedisServer::start();
    let bus = TestBus::over(&redis.url()).await;
    let lists = ["[[[[]]]]"; 300].join(",");
    // The library reads such events with fewer brackets, in strings too.
    for (name, number) in [("[]", 1), ("[[]]", 2), (" 0 ", 3), ("[]", 1)] {
        let event = format!(r#"{{"type":"a.b","id":"{name}","data":[{lists}]}}"#);
        let answer = redis.command(&["FCALL", "carillon_publish", "1", LOG, &event]);
        assert!(answer.trim().ends_with(&format!("-{number}")), "{name}: {answer}");
    }
    bus.end().await;
}
