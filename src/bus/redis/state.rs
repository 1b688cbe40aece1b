//! A node's state on the board: a JSON object, with the seal of the node as its last member.
//!
//! Nodes of other releases ignore the seal and still read the JSON.

use bytes::Bytes;

use super::seal::{Seal, SealError};

/// What stands between a state and its seal.
const MEMBER: &str = ",\"signed\":\"";

fn words(node: &str, state: &str) -> String {
    format!("{node}\n{state}")
}

/// The state (a JSON object with members) of this node, sealed where there is a secret.
pub(super) fn sealed(seal: &Seal, node: &str, state: Bytes) -> Bytes {
    let Ok(text) = std::str::from_utf8(&state) else { return state };
    let start = text.strip_suffix('}').filter(|start| *start != "{");
    match (seal.sign("node", &words(node, text)), start) {
        (Some(signed), Some(start)) => Bytes::from(format!("{start}{MEMBER}{signed}\"}}")),
        _ => state,
    }
}

/// The state without its seal, where the node itself said so, `life` ms ago at most.
pub(super) fn opened(seal: &Seal, node: &str, state: &Bytes, life: u64) -> Result<Bytes, SealError> {
    let text = std::str::from_utf8(state).map_err(|_| SealError::Wrong)?;
    let found = text.rsplit_once(MEMBER).and_then(|(start, end)| Some((start, end.strip_suffix("\"}")?)));
    // A seal has neither quotation marks nor escapes.
    let Some((start, signed)) = found.filter(|(_, signed)| !signed.contains(['"', '\\'])) else {
        return seal.read("node", &words(node, text), None, life).map(|()| state.clone());
    };
    let text = format!("{start}}}");
    seal.read("node", &words(node, &text), Some(signed), life)?;
    Ok(Bytes::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::time::now_ms;

    #[test]
    fn a_state_is_the_nodes_own_and_nobody_elses() {
        let seal = Seal::new("carillon", "a node's secret of 32 bytes or more", None, true);
        seal.redis_says(now_ms());
        let state = Bytes::from(r#"{"node":"a","x":"},\"signed\":\"1 2 3\""}"#);
        let written = sealed(&seal, "a", state.clone());
        assert_eq!(opened(&seal, "a", &written, 0), Ok(state.clone()));
        assert_eq!(opened(&Seal::default(), "a", &written, 0), Ok(state.clone()), "without a secret");
        let json: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(
            (&json["node"], json["signed"].is_string()),
            (&"a".into(), true),
            "older releases read JSON"
        );
        assert_eq!(opened(&seal, "b", &written, 0), Err(SealError::Wrong), "another node's");
        assert_eq!(opened(&seal, "a", &state, 0), Err(SealError::Missing));
        assert_eq!(opened(&Seal::default(), "a", &state, 0), Ok(state.clone()));
        assert_eq!(sealed(&Seal::default(), "a", state.clone()), state);
    }
}
