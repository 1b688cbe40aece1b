//! The kind of a refused event as one word, by the node's error and by the publish function's sentence: by these words the tests
//! and the fuzz targets, which both include this file, compare what the two say.

use carillon::protocol::EventError;

/// By the node's error.
pub fn of_error(error: &EventError) -> &'static str {
    match error {
        EventError::TooLarge { .. } => "size",
        EventError::Utf8(_) => "utf8",
        EventError::Json(_) => "json",
        EventError::Type => "type",
        EventError::Attribute(name) => name,
    }
}

/// By the function's sentence.
pub fn of_sentence(text: &str) -> &'static str {
    let marks = [
        ("bytes, at most", "size"),
        ("not valid UTF-8", "utf8"),
        ("not a JSON object", "json"),
        ("needs a \"type\"", "type"),
        ("\"id\" must be", "id"),
        ("\"source\" must be", "source"),
    ];
    marks.iter().find(|(mark, _)| text.contains(mark)).map_or("unclear", |(_, verdict)| verdict)
}
