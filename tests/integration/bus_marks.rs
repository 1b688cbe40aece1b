//! Marks of live events in a real Redis.

use crate::support::{bus::TestBus, redis::RedisServer};

#[tokio::test]
async fn a_mark_of_a_master_whose_clock_was_ahead_is_no_further_ahead_than_any_other() {
    let redis = RedisServer::start();
    let bus = TestBus::over(&redis.url()).await;
    let now = bus.bus.marks().await.unwrap().now;
    for (area, ahead) in [("comments", 600_000), ("comments!", 600_000), ("projects", 2_000)] {
        redis.command(&["HSET", "carillon:live:{carillon}", area, &(now + ahead).to_string()]);
    }
    let read = bus.bus.marks().await.unwrap();
    let left = |area: &str| read.marks[area] - now;
    assert!(
        (30_000..60_000).contains(&left("comments")) && left("comments") == left("comments!"),
        "{read:?}"
    );
    assert_eq!(left("projects"), 2_000);
    // So much for everybody: it does not move on with the clock.
    assert_eq!(bus.bus.marks().await.unwrap().marks, read.marks);
    bus.end().await;
}
