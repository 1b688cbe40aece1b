//! Text of strangers as a terminal may be shown it: what would act there is written out instead.
//!
//! An escape sequence colours, renames and moves; a bidi control shows a line in another order than it is read. Each
//! such character becomes `\u001b`, the way JSON writes it, so that a line of JSON still means the same.

use std::{borrow::Cow, fmt::Write as _};

/// Whether a terminal would act on a character instead of showing it, but for the ends of lines and tabs: C0, DEL and C1
/// (ECMA-48), the bidi controls (UAX #9), and the separators of lines and paragraphs.
fn acts(c: char) -> bool {
    let bidi =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    bidi || c.is_control() && !matches!(c, '\n' | '\t')
}

/// A text of several lines. Ends of lines stay, and everything else that acts on a terminal is written out.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, acts)
}

/// A text that belongs on one line: its ends of lines are written out as well.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| acts(c) || c == '\n')
}

/// The beginning of a text in quotation marks, escaped as in Rust: for messages that quote what somebody sent.
#[must_use]
pub fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    format!("{short:?}{}", if short.len() < text.len() { "…" } else { "" })
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool + Copy) -> Cow<'_, str> {
    if !text.contains(is_bad) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_bad(c) {
            // Never more than four digits: all of them are in the first plane.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_is_left() {
        let bad = ('\0'..'\u{20}')
            .chain('\u{7f}'..'\u{a0}')
            .chain('\u{2028}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
            .chain(['\u{61c}', '\u{200e}', '\u{200f}']);
        for c in bad.filter(|c| !matches!(c, '\n' | '\t')) {
            let text = format!("a{c}b");
            for shown in [lines(&text), line(&text)] {
                assert_eq!(shown, format!("a\\u{:04x}b", u32::from(c)));
                let json: String = serde_json::from_str(&format!("\"{shown}\"")).unwrap();
                assert_eq!(json, text, "a string of JSON means the same");
            }
        }
    }

    #[test]
    fn everything_else_stays() {
        let text = "Zoë\tΣΟΦΟΣ 日本 עברית 👩‍💻 ✓\u{a0}\n→ é";
        assert_eq!(lines(text), text);
        assert_eq!(line(text), text.replace('\n', "\\u000a"));
    }
}
