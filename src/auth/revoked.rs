//! Editors whose sessions an operator has closed (`POST /disconnect`): a token from before that opens no door any more.
//!
//! A token says when it was made (`iat`); one that does not say so cannot be told from a new one, and counts until it
//! ends. Kept in memory by every node that was running when the order came: the way to lock somebody out for good is the
//! CMS, which stops giving him tokens. Must not know sessions.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::token::Claims;
use crate::protocol::Topic;

/// Seconds that an order is remembered: longer than tokens should live.
const KEPT: u64 = 86_400;
/// Editors that are remembered; then the oldest orders are forgotten.
const MAX_KEPT: usize = 10_000;

/// Who was told to go, and when.
#[derive(Debug, Default)]
pub(super) struct Revoked(Mutex<HashMap<String, u64>>);

impl Revoked {
    /// The sessions of an editor were closed, at a time in seconds since 1970.
    pub(super) fn add(&self, user: &str, now: u64) {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.len() >= MAX_KEPT {
            orders.retain(|_, at| now.saturating_sub(*at) < KEPT);
            let oldest = orders.iter().min_by_key(|(_, at)| **at).map(|(user, _)| user.clone());
            if let Some(oldest) = oldest.filter(|_| orders.len() >= MAX_KEPT) {
                orders.remove(&oldest);
            }
        }
        orders.insert(Topic::own_key(user), now);
    }

    /// Whether a token was made before its editor was told to go.
    pub(super) fn covers(&self, claims: &Claims) -> bool {
        let orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(issued) = claims.issued.filter(|_| !orders.is_empty()) else { return false };
        orders.get(&Topic::own_key(&claims.sub)).is_some_and(|at| issued < *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_from_before_the_order_are_covered() {
        let claims =
            |sub: &str, issued| Claims { sub: sub.into(), exp: 0, issued, topics: None, publish: None };
        let revoked = Revoked::default();
        assert!(!revoked.covers(&claims("anna", Some(1))));
        revoked.add("anna", 1000);
        assert!(revoked.covers(&claims("anna", Some(999))) && revoked.covers(&claims("Anna", Some(999))));
        assert!(!revoked.covers(&claims("anna", Some(1000))) && !revoked.covers(&claims("bo", Some(1))));
        assert!(!revoked.covers(&claims("anna", None)), "nobody knows when it was made");
        for n in 0..=MAX_KEPT as u64 {
            revoked.add(&format!("editor {n}"), 1001 + n);
        }
        assert_eq!(revoked.0.lock().unwrap().len(), MAX_KEPT);
        assert!(!revoked.covers(&claims("anna", Some(1))), "the oldest order is forgotten");
    }
}
