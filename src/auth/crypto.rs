//! Signatures of tokens, made and checked by `ring`, which is in the program for TLS anyway.
//!
//! `jsonwebtoken` brings its own cryptography only as a feature, and that means a dozen more crates to build and an RSA
//! with a known timing fault. It takes another provider instead, and this is it: all algorithms that
//! [`Algorithm`](crate::config::Algorithm) names are checked, and the HMAC ones are made. Carillon holds public keys
//! only, so it never signs with the others.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result},
    signature::{self, Signer, Verifier},
};
use ring::{
    hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};

/// The bytes of the shortest RSA modulus that is taken: 2048 bits.
pub(super) const MODULUS: usize = 256;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes `jsonwebtoken` use `ring`. Must come before the first token is made or checked; later calls change nothing.
pub(super) fn install() {
    // A second installation is refused, which is as good.
    let _ = PROVIDER.install_default();
}

fn hash_of(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "`jsonwebtoken` wants it so")]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    let hash = hash_of(*algorithm).ok_or(ErrorKind::InvalidAlgorithm)?;
    Ok(Box::new(Hmac { algorithm: *algorithm, key: hmac::Key::new(hash, key.as_bytes()) }))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "likewise")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if algorithm.family() != key.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let public = |check| -> Result<Box<dyn JwtVerifier>> {
        Ok(Box::new(PublicKeyVerifier { algorithm: *algorithm, check, key: key.clone() }))
    };
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            let hash = hash_of(*algorithm).ok_or(ErrorKind::InvalidAlgorithm)?;
            let key = hmac::Key::new(hash, key.try_get_as_bytes()?);
            Ok(Box::new(Hmac { algorithm: *algorithm, key }))
        }
        Algorithm::RS256 => public(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::ES256 => public(&ECDSA_P256_SHA256_FIXED),
        Algorithm::EdDSA => public(&ED25519),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

/// A shared secret.
struct Hmac {
    algorithm: Algorithm,
    key: hmac::Key,
}

impl Signer<Vec<u8>> for Hmac {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, signature::Error> {
        Ok(hmac::sign(&self.key, message).as_ref().to_vec())
    }
}

impl JwtSigner for Hmac {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Hmac {
    fn verify(&self, message: &[u8], tag: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        // In constant time.
        hmac::verify(&self.key, message, tag).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Hmac {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// A number without leading zeros: some issuers write one before the modulus, and `ring` takes none.
pub(super) fn significant(number: &[u8]) -> &[u8] {
    &number[number.iter().position(|&byte| byte != 0).unwrap_or(number.len())..]
}

/// The modulus of an RSA key in DER form (RFC 8017, A.1.1: a SEQUENCE whose first INTEGER it is), without leading zeros;
/// `None` where that is not its form.
pub(super) fn modulus(der: &[u8]) -> Option<&[u8]> {
    let (numbers, _) = der_value(0x30, der)?;
    let (modulus, _) = der_value(0x02, numbers)?;
    Some(significant(modulus))
}

/// A value of this kind at the beginning of a DER text, and what follows it.
fn der_value(kind: u8, text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = text.split_first_chunk::<2>().filter(|(head, _)| head[0] == kind)?;
    // Lengths of 128 and more stand in as many bytes as the lower bits say.
    let bytes = if head[1] < 0x80 { 0 } else { usize::from(head[1] & 0x7F) };
    let (long, rest) = rest.split_at_checked(bytes).filter(|_| bytes <= 4)?;
    let long = long.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    rest.split_at_checked(if bytes == 0 { usize::from(head[1]) } else { long })
}

/// A public key.
struct PublicKeyVerifier {
    algorithm: Algorithm,
    check: &'static dyn VerificationAlgorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for PublicKeyVerifier {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let checked = match self.key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => {
                UnparsedPublicKey::new(self.check, bytes).verify(message, signed)
            }
            // From a JWKS.
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RsaPublicKeyComponents { n: significant(n), e: significant(e) }.verify(
                    &RSA_PKCS1_2048_8192_SHA256,
                    message,
                    signed,
                )
            }
        };
        checked.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for PublicKeyVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
