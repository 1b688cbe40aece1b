//! Places where a safeguard can be taken out, so that the fault tests can show that they would notice.
//!
//! Only a build with the feature `mutants` asks the environment (`CARILLON_MUTANT`, read once); in every other build the
//! answer is the constant `false`, and nothing of this is left in the program.

/// Whether the safeguard of this name is taken out.
#[cfg(feature = "mutants")]
#[allow(
    clippy::disallowed_methods,
    reason = "a switch for tests is no configuration: users must not find it there"
)]
pub(crate) fn is(name: &str) -> bool {
    static ACTIVE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ACTIVE.get_or_init(|| std::env::var("CARILLON_MUTANT").ok()).as_deref() == Some(name)
}

/// Whether the safeguard of this name is taken out: never.
#[cfg(not(feature = "mutants"))]
#[inline]
pub(crate) const fn is(_name: &str) -> bool {
    false
}
