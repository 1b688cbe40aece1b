//! Two ways to one node: what goes wrong on the public one and not on the direct one is the fault of what stands between.

use super::report::{Finding, Part, Verdict};

/// Names the hop at fault in the findings about the public way.
pub(super) fn blame(public: &mut Part, direct: &Part, hop: &str) {
    for finding in public.findings.iter_mut().filter(|finding| finding.verdict == Verdict::Bad) {
        finding.hop = verdict(finding, direct, hop);
    }
}

fn verdict(finding: &Finding, direct: &Part, hop: &str) -> Option<String> {
    let place = &direct.place;
    // An answer of the public way that has no counterpart: the node itself speaks no TLS, for example.
    let other = direct.findings.iter().find(|other| other.question == finding.question);
    match other.map(|other| other.verdict) {
        Some(Verdict::Good | Verdict::Warning) => {
            Some(format!("The node itself ({place}) does this right: the fault is with {hop}."))
        }
        Some(Verdict::Bad) => Some(format!(
            "The node itself ({place}) does the same: look there first, not at what stands between."
        )),
        None if direct.findings.iter().all(|other| other.verdict != Verdict::Bad) => {
            Some(format!("The node itself ({place}) is well: the fault is with {hop}."))
        }
        Some(Verdict::Untested) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &'static str, findings: Vec<Finding>) -> Part {
        Part { name, place: format!("http://{name}"), findings }
    }

    #[test]
    fn the_hop_is_blamed_only_where_the_node_is_well() {
        let bad = |question| Finding::bad(question, "", "");
        let mut public =
            part("public", vec![bad("handshake"), bad("sse"), bad("certificate"), Finding::good("poll", "")]);
        let direct = part("direct", vec![Finding::good("handshake", ""), bad("sse")]);
        blame(&mut public, &direct, "nginx");
        let hops: Vec<_> =
            public.findings.iter().map(|finding| finding.hop.as_deref().unwrap_or("-")).collect();
        assert!(
            hops[0].ends_with("the fault is with nginx.") && hops[1].contains("does the same"),
            "{hops:?}"
        );
        assert_eq!(hops[2..], ["-", "-"]);
    }
}
