//! One key that signatures are checked with: from a set (RFC 7517), from a PEM file, or a shared secret.
//!
//! A key is only ever used with algorithms of its own kind. Where keys are kept is for `jwks` and `token`.

use jsonwebtoken::{
    DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde_json::Value;

use super::crypto::{self, MODULUS};
use crate::config::Algorithm;

/// A key that signatures are checked with.
#[derive(Debug, Clone)]
pub(super) struct Key {
    id: Option<String>,
    /// The only algorithm that it may be used with, where that is said.
    only: Option<Algorithm>,
    decoding: DecodingKey,
}

impl Key {
    /// A key without a name.
    pub(super) fn new(key: DecodingKey) -> Self {
        Self { id: None, only: None, decoding: key }
    }

    /// Whether it is of the algorithm's kind.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.decoding.family() == jsonwebtoken::Algorithm::from(algorithm).family()
            && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether it has no name: then a token cannot say which one it was signed with.
    pub(super) fn is_unnamed(&self) -> bool {
        self.id.is_none()
    }

    /// Whether a token that names `id` may have been signed with it; one that names none may have been with any.
    pub(super) fn is_called(&self, id: Option<&str>) -> bool {
        id.is_none() || self.id.as_deref() == id
    }

    /// The key itself.
    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// A key of a set; `None` for one that is not for us.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        // RFC 7517, 4.3: where operations are listed, checking signatures must be one of them.
        let may_verify = |list: &Vec<KeyOperations>| list.contains(&KeyOperations::Verify);
        if !jwk.common.key_operations.as_ref().is_none_or(may_verify) {
            return None;
        }
        let own = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::Rs256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::Es256,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDsa,
            _ => return None,
        };
        if value.get("alg").is_some_and(|alg| alg != own.name()) {
            return None;
        }
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        if let DecodingKeyKind::RsaModulusExponent { n, .. } = decoding.kind()
            && crypto::significant(n).len() < MODULUS
        {
            return None;
        }
        Some(Self { id: jwk.common.key_id, only: Some(own), decoding })
    }
}

/// A public key in PEM form, and the algorithm that it is of. The error says what else
/// the text is.
pub(super) fn from_pem(pem: &[u8]) -> Result<(Algorithm, Key), &'static str> {
    let text = String::from_utf8_lossy(pem);
    if text.contains("PRIVATE KEY") {
        return Err("that is a private key, which stays with the CMS: give the public one");
    }
    if !text.contains("-----BEGIN PUBLIC KEY") && !text.contains("-----BEGIN RSA PUBLIC KEY") {
        return Err("that is not a public key in PEM form (-----BEGIN PUBLIC KEY-----)");
    }
    let ec = || DecodingKey::from_ec_pem(pem).ok().map(|key| (Algorithm::Es256, key));
    let ed = || DecodingKey::from_ed_pem(pem).ok().map(|key| (Algorithm::EdDsa, key));
    let rsa = || DecodingKey::from_rsa_pem(pem).ok().map(|key| (Algorithm::Rs256, key));
    let (algorithm, key) = ec().or_else(ed).or_else(rsa).ok_or("that is not an RSA, P-256 or Ed25519 key")?;
    // An uncompressed point of P-256: 0x04 and two coordinates of 32 bytes (SEC 1, 2.3.3).
    if algorithm == Algorithm::Es256 && key.try_get_as_bytes().is_ok_and(|point| point.len() != 65) {
        return Err("that is a key of another curve than P-256, the one of ES256");
    }
    let is_long = |der| crypto::modulus(der).is_some_and(|modulus| modulus.len() >= MODULUS);
    if algorithm == Algorithm::Rs256 && !key.try_get_as_bytes().is_ok_and(is_long) {
        return Err(
            "that is an RSA key of less than 2048 bits, which is too short to be safe: make a longer one",
        );
    }
    Ok((algorithm, Key::new(key)))
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Hs256 => Self::HS256,
            Algorithm::Hs384 => Self::HS384,
            Algorithm::Hs512 => Self::HS512,
            Algorithm::Rs256 => Self::RS256,
            Algorithm::Es256 => Self::ES256,
            Algorithm::EdDsa => Self::EdDSA,
        }
    }
}
