//! The sources whose changes may be late, as sessions are told: a list that is encoded once for everybody.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::time::rfc3339;

/// The sources that are late, in the order of their names. Cheap to clone.
#[derive(Clone)]
pub struct Late {
    json: Arc<RawValue>,
    digest: u32,
}

#[derive(Serialize)]
struct LateSource<'a> {
    source: &'a str,
    since: String,
}

impl Late {
    /// These sources, each with since when, ms since 1970.
    pub fn new(sources: &[(&str, u64)]) -> Self {
        let list: Vec<_> =
            sources.iter().map(|(source, since)| LateSource { source, since: rfc3339(*since) }).collect();
        // Plain data: there is nothing to fail on.
        let json = serde_json::value::to_raw_value(&list).unwrap_or_else(|_| RawValue::NULL.to_owned());
        let names = sources.iter().map(|(source, _)| *source).collect::<Vec<_>>().join("\n");
        let hash: [u8; 32] = Sha256::digest(names).into();
        let digest = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        Self { json: json.into(), digest: if sources.is_empty() { 0 } else { digest.max(1) } }
    }

    /// Whether nobody is late.
    pub fn is_empty(&self) -> bool {
        self.digest == 0
    }

    /// A hash of which sources these are, whatever their times; 0: none.
    pub fn digest(&self) -> u32 {
        self.digest
    }
}

impl Default for Late {
    /// Nobody is late.
    fn default() -> Self {
        Self::new(&[])
    }
}

impl PartialEq for Late {
    fn eq(&self, other: &Self) -> bool {
        self.json.get() == other.json.get()
    }
}

impl Eq for Late {}

impl Serialize for Late {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.json.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_known_by_its_names() {
        let (one, later) = (Late::new(&[("cms", 0)]), Late::new(&[("cms", 1000)]));
        assert_eq!(
            serde_json::to_string(&one).unwrap(),
            r#"[{"source":"cms","since":"1970-01-01T00:00:00.000Z"}]"#
        );
        assert!(one != later && one.digest() == later.digest());
        assert_ne!(one.digest(), Late::new(&[("cms", 0), ("shop", 0)]).digest());
        let none = Late::new(&[]);
        assert!(none.is_empty() && !one.is_empty() && none.digest() == 0);
        assert_eq!(serde_json::to_string(&none).unwrap(), "[]");
    }
}
