//! Topics: the node and the publish function must agree, there is one spelling of each, and no spelling of anything
//! opens somebody else's private topic.

use carillon::{
    auth::Grant,
    protocol::{
        Areas, Naming, Subject, Topic,
        naming::{MAX_KEY_BYTES, encode_key},
    },
};

use crate::{areas, function};

/// The editor whose grant is tried.
const EDITOR: &str = "Änne O'Hara%";

/// Checks one input: a topic, which is also taken for an editor's name.
///
/// # Panics
/// Where a property does not hold.
pub fn check(data: &[u8]) {
    let areas = areas();
    let text = std::str::from_utf8(data);
    agree(data, text.ok(), &areas);
    let Ok(text) = text else { return };
    if let Ok(topic) = Topic::parse(text, &areas) {
        one_spelling(&topic, text, &areas);
    }
    if let Ok(subject) = Subject::parse(text, &areas) {
        assert_eq!(subject.to_string(), text);
        granted(&subject, &areas);
    }
    editors(text, &areas);
}

fn agree(data: &[u8], text: Option<&str>, areas: &Areas) {
    let channel = [b"carillon:", data].concat();
    let sent = function::publish(&channel, br#"{"type":"a.b"}"#);
    match text.map(|text| Topic::parse_published(text, areas)) {
        Some(Ok(_)) => assert!(sent.is_ok(), "the function refuses: {sent:?}"),
        Some(Err(error)) => assert!(sent.is_err(), "the function accepts: {error}"),
        None => assert!(sent.is_err(), "the function accepts what is not UTF-8"),
    }
}

fn one_spelling(topic: &Topic, text: &str, areas: &Areas) {
    assert_eq!(topic.as_str(), text);
    assert_eq!(topic.is_wide(), topic.key().is_none());
    assert_eq!(topic.wide().as_str(), topic.area());
    assert!(topic.key().is_none_or(|key| (1..=MAX_KEY_BYTES).contains(&key.len())));
    assert!(!text.chars().any(|c| matches!(c, ' ' | '*' | ',' | '{' | '}') || c.is_control()), "{text:?}");
    assert_eq!(Topic::parse_named(text, areas).ok(), Topic::parse_published(text, areas).ok());
    let folding = areas.clone().with_naming(Naming::Folded);
    if let Ok(own) = Topic::parse_named(text, &folding) {
        assert_eq!(
            Topic::parse_published(own.as_str(), &folding).as_ref(),
            Ok(&own),
            "the right spelling is refused"
        );
        assert!(Topic::parse_published(text, areas).is_ok(), "folding takes what is misspelt");
    }
}

/// Whatever a grant covers, private topics are the editor's own.
fn granted(subject: &Subject, areas: &Areas) {
    let key = Naming::Exact.key(EDITOR).expect("a good name");
    let grant = Grant::new(&key, ["*", "notifications:*", "notifications:anna", &subject.to_string()]);
    let allowed = match subject {
        Subject::Every(_) => !areas.is_private(subject.area()),
        Subject::Topic(topic) if areas.is_private(topic.area()) && !topic.is_wide() => {
            *topic == Topic::private(topic.area(), &key)
        }
        Subject::Topic(_) => true,
    };
    assert_eq!(grant.allows(subject, areas), allowed, "{subject}");
    // A grant of this one subject opens nothing else.
    let narrow = Grant::new(&key, [subject.to_string()]);
    assert!(
        !narrow.allows(&Subject::Topic(Topic::private("comments", "another%20one")), areas)
            || allowed_by(subject)
    );
}

/// Whether the subject covers `comments:another%20one`.
fn allowed_by(subject: &Subject) -> bool {
    matches!(subject.to_string().as_str(), "comments:*" | "comments:another%20one")
}

/// Every name that somebody can have has a private topic that its editor may follow and publishers can name.
fn editors(name: &str, areas: &Areas) {
    for naming in [Naming::Exact, Naming::Folded] {
        let areas = areas.clone().with_naming(naming);
        let Ok(key) = naming.key(name) else { continue };
        let topic = Topic::private("notifications", &key);
        assert_eq!(
            Topic::parse_published(topic.as_str(), &areas).as_ref(),
            Ok(&topic),
            "{name:?} cannot be notified"
        );
        assert!(Grant::new(&key, [""; 0]).allows(&Subject::Topic(topic), &areas));
    }
    let raw = encode_key(name);
    if (1..=MAX_KEY_BYTES).contains(&raw.len()) {
        assert!(Topic::parse(&format!("comments:{raw}"), areas).is_ok(), "{raw:?}");
    }
}
