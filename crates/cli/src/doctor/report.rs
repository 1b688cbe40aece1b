//! What the doctor found: a finding for each question, as a table for people or as JSON for programs.

use std::fmt::Write as _;

use carillon::printable::line;
use serde_json::{Value, json};

/// How a question was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// Works, and may cost somebody something one day.
    Warning,
    Bad,
    /// Could not be asked, because of an answer above.
    Untested,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
            Self::Untested => "untested",
        }
    }

    fn sign(self) -> char {
        match self {
            Self::Good => '✓',
            Self::Warning => '!',
            Self::Bad => '✗',
            Self::Untested => '–',
        }
    }

    /// Select Graphic Rendition (ECMA-48, 8.3.117): green, yellow, red, faint.
    fn colour(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31",
            Self::Untested => "2",
        }
    }
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// What was asked, in a word; a name for programs.
    pub(super) question: &'static str,
    pub(super) verdict: Verdict,
    /// What was found, one sentence.
    pub(super) sentence: String,
    /// What to change where.
    pub(super) advice: Option<String>,
    /// Who is to blame, after the node itself was asked as well.
    pub(super) hop: Option<String>,
}

impl Finding {
    fn new(question: &'static str, verdict: Verdict, sentence: String, advice: Option<String>) -> Self {
        Self { question, verdict, sentence, advice, hop: None }
    }

    pub(super) fn good(question: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(question, Verdict::Good, sentence.into(), None)
    }

    pub(super) fn warning(
        question: &'static str,
        sentence: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(question, Verdict::Warning, sentence.into(), Some(advice.into()))
    }

    pub(super) fn bad(
        question: &'static str,
        sentence: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(question, Verdict::Bad, sentence.into(), Some(advice.into()))
    }

    pub(super) fn untested(question: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(question, Verdict::Untested, sentence.into(), None)
    }

    fn json(&self) -> Value {
        let mut json = json!({
            "question": self.question, "verdict": self.verdict.word(), "sentence": self.sentence,
        });
        if let Some(advice) = &self.advice {
            json["advice"] = advice.as_str().into();
        }
        if let Some(hop) = &self.hop {
            json["hop"] = hop.as_str().into();
        }
        json
    }
}

/// The findings about one thing.
#[derive(Debug)]
pub(super) struct Part {
    /// `public`, `direct` or `redis`.
    pub(super) name: &'static str,
    /// Where it is, for people.
    pub(super) place: String,
    pub(super) findings: Vec<Finding>,
}

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Report(pub(super) Vec<Part>);

impl Report {
    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter().flat_map(|part| &part.findings)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.findings().filter(|finding| finding.verdict == verdict).count()
    }

    /// Whether nothing is wrong.
    pub(super) fn is_healthy(&self) -> bool {
        self.count(Verdict::Bad) == 0
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let parts = self.0.iter().map(|part| {
            let findings: Vec<_> = part.findings.iter().map(Finding::json).collect();
            json!({ "part": part.name, "place": part.place, "findings": findings })
        });
        json!({ "healthy": self.is_healthy(), "parts": parts.collect::<Vec<_>>() })
    }

    /// For people.
    pub(super) fn table(&self, colours: bool) -> String {
        let paint = |text: &str, colour: &str| {
            if colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
        };
        let mut table = String::new();
        let width = self.findings().map(|finding| finding.question.len()).max().unwrap_or(0);
        for part in &self.0 {
            let _ = writeln!(table, "{}", paint(&line(&part.place), "1"));
            for finding in &part.findings {
                let sign = paint(&finding.verdict.sign().to_string(), finding.verdict.colour());
                let _ = writeln!(table, "{sign} {:width$}  {}", finding.question, line(&finding.sentence));
                for more in [&finding.hop, &finding.advice].into_iter().flatten() {
                    let _ = writeln!(table, "  {:width$}  → {}", "", line(more));
                }
            }
            table.push('\n');
        }
        let _ = writeln!(table, "{}", self.summary());
        table
    }

    fn summary(&self) -> String {
        let (bad, warnings) = (self.count(Verdict::Bad), self.count(Verdict::Warning));
        let untested = match self.count(Verdict::Untested) {
            0 => String::new(),
            1 => " One question could not be asked.".into(),
            n => format!(" {n} questions could not be asked."),
        };
        let found = match (bad, warnings) {
            (0, 0) => "All is well.".into(),
            (0, n) => format!("Nothing is wrong; {n} {} to think about.", things(n)),
            (n, 0) => format!("{n} {} wrong.", things_are(n)),
            (n, m) => format!("{n} {} wrong, and {m} to think about.", things_are(n)),
        };
        found + &untested
    }
}

fn things(n: usize) -> &'static str {
    if n == 1 { "thing" } else { "things" }
}

fn things_are(n: usize) -> &'static str {
    if n == 1 { "thing is" } else { "things are" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let bad =
            Finding { hop: Some("It is nginx.".into()), ..Finding::bad("handshake", "No.", "Do this.") };
        let findings = vec![Finding::good("address", "Yes."), bad, Finding::untested("idle", "Not asked.")];
        Report(vec![Part { name: "public", place: "http://x/realtime".into(), findings }])
    }

    #[test]
    fn people_get_a_table() {
        assert_eq!(
            report().table(false),
            "http://x/realtime\n✓ address    Yes.\n✗ handshake  No.\n             → It is nginx.\n             → Do this.\n– idle       \
             Not asked.\n\n1 thing is wrong. One question could not be asked.\n"
        );
        assert!(report().table(true).contains("\x1b[31m✗\x1b[0m handshake"));
    }

    #[test]
    fn programs_get_json() {
        let json = report().json();
        assert_eq!(json["healthy"], false);
        let finding = &json["parts"][0]["findings"][1];
        let expected = json!({"question": "handshake", "verdict": "bad", "sentence": "No.", "advice": "Do this.", "hop": "It is nginx."});
        assert_eq!(*finding, expected);
    }
}
