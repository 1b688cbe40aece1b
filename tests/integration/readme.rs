//! README.md's first screen: what somebody must be told before anything else.

const README: &str = include_str!("../../README.md");

#[test]
fn its_first_paragraph_says_what_redis_is_needed() {
    let first = README.split("\n\n").nth(1).unwrap().replace('\n', " ");
    assert!(first.contains("Redis 7 or newer"), "{first}");
}

/// The first screen, some sixty lines: what it is, when not to use it, the one command, where the rest is.
#[test]
fn its_first_screen_answers_the_first_questions() {
    let screen = README.lines().take(60).collect::<Vec<_>>().join("\n");
    for needed in
        ["cargo run -- dev", "When not to use it", "docs/screenshots/demo-", "docs/README.md", "WSL 2"]
    {
        assert!(screen.contains(needed), "README's first screen has no “{needed}”");
    }
}
