//! Who is let in and who is not: every way of proving oneself, and the known attacks on each.

mod remote;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use ring::{
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    config::{Algorithm, Layers, Secret},
    protocol::{Topic, time::now_ms},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PREVIOUS: &str = "previous-secret-previous-secret-!";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/auth/fixtures").join(name)
}

fn pem(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

fn areas() -> Areas {
    Areas::new(["comments", "projects", "notifications"], ["notifications"], []).unwrap()
}

fn try_new(settings: &[(&str, &str)]) -> Result<Authenticator, String> {
    let layers = settings.iter().fold(Layers::new(), |layers, (key, value)| {
        let (section, name) = key.split_once('.').unwrap_or(("auth", key));
        layers.set(&format!("{section}.{name}"), *value, "test")
    });
    let config = layers.load().map_err(|error| error.to_string())?;
    let mode = config.auth_mode().map_err(|error| error.to_string())?;
    let judge = Authenticator::new(mode, &config.auth, &areas());
    judge.map_err(|wrong| config.complaint(wrong.key, wrong.what).to_string())
}

fn new(settings: &[(&str, &str)]) -> Authenticator {
    try_new(settings).unwrap()
}

fn jwt(settings: &[(&str, &str)]) -> Authenticator {
    new(&[&[("mode", "jwt")], settings].concat())
}

fn public(name: &str) -> Authenticator {
    jwt(&[("public_key_file", fixture(name).to_str().unwrap())])
}

fn in_seconds(seconds: i64) -> i64 {
    now_ms().cast_signed() / 1000 + seconds
}

fn claims() -> Value {
    json!({"sub": "Anna", "exp": in_seconds(600), "topics": ["comments:42"], "publish": ["projects"]})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn hs(claims: &Value, secret: &str) -> String {
    token::sign(claims, &Secret::new(secret), Algorithm::Hs256).unwrap()
}

/// The issuers' private keys.
fn rsa_key() -> RsaKeyPair {
    RsaKeyPair::from_der(EncodingKey::from_rsa_pem(&pem("rsa.pem")).unwrap().as_bytes()).unwrap()
}

fn ec_key() -> EcdsaKeyPair {
    let key = EncodingKey::from_ec_pem(&pem("ec.pem")).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_bytes(), &SystemRandom::new()).unwrap()
}

fn ed_key() -> Ed25519KeyPair {
    let key = EncodingKey::from_ed_pem(&pem("ed.pem")).unwrap();
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes()).unwrap()
}

fn rsa_signature(key: &RsaKeyPair, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

/// A token as another program makes it.
fn signed(algorithm: &str, id: Option<&str>, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let header = id.map_or_else(|| json!({"alg": algorithm}), |id| json!({"alg": algorithm, "kid": id}));
    let token = unsigned(&header, &claims(), "");
    let message = token.trim_end_matches('.');
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(sign(message.as_bytes())))
}

fn rsa(id: Option<&str>) -> String {
    signed("RS256", id, |message| rsa_signature(&rsa_key(), message))
}

fn ec(id: Option<&str>) -> String {
    let sign = |message: &[u8]| ec_key().sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    signed("ES256", id, sign)
}

fn ed(id: Option<&str>) -> String {
    signed("EdDSA", id, |message| ed_key().sign(message).as_ref().to_vec())
}

fn unsigned(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

async fn ask(door: &Authenticator, token: &str) -> Result<Identity, AuthError> {
    door.authenticate(&Credentials::default().with_token(token)).await
}

async fn refusal(door: &Authenticator, token: &str) -> String {
    let error = ask(door, token).await.expect_err("should have been refused");
    let text = error.to_string();
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!text.contains(part), "the refusal quotes the token: {text}");
    }
    text
}

#[tokio::test]
async fn one_text_is_a_list_of_topics_too() {
    let door = jwt(&[("secret", SECRET)]);
    for (topics, allowed) in [("*", true), ("projects, comments:1", true), ("projects", false), ("", false)] {
        let mut claims = claims();
        claims["topics"] = json!(topics);
        let grant = ask(&door, &hs(&claims, SECRET)).await.unwrap().grant;
        let subject = Subject::parse("comments:1", &areas()).unwrap();
        assert_eq!(grant.allows(&subject, &areas()), allowed, "{topics:?}");
    }
}

#[tokio::test]
async fn a_good_token_says_who_and_what() {
    let door = jwt(&[("secret", SECRET), ("default_topics", "projects")]);
    let anna = ask(&door, &hs(&claims(), SECRET)).await.unwrap();
    assert_eq!(
        (anna.user.as_str(), anna.expires.unwrap().cast_signed()),
        ("Anna", claims()["exp"].as_i64().unwrap())
    );
    let allows = |identity: &Identity, text: &str| {
        identity.grant.allows(&Subject::parse(text, &areas()).unwrap(), &areas())
    };
    assert!(
        allows(&anna, "comments:42") && allows(&anna, "notifications:Anna") && !allows(&anna, "projects")
    );
    assert!(anna.publish.covers(&Topic::parse("projects", &areas()).unwrap(), &areas()));
    assert!(!anna.publish.covers(&Topic::parse("comments:42", &areas()).unwrap(), &areas()));

    let mut bare = claims();
    bare.as_object_mut().unwrap().retain(|name, _| name == "sub" || name == "exp");
    let bare = ask(&door, &hs(&bare, SECRET)).await.unwrap();
    assert!(allows(&bare, "projects") && !allows(&bare, "comments:42") && bare.publish.is_empty());
    let none = ask(&door, &hs(&with("topics", json!([])), SECRET)).await.unwrap();
    assert!(!allows(&none, "projects"), "an empty list is not a missing one");
}

#[tokio::test]
async fn each_algorithm_works_with_its_own_key() {
    let door = jwt(&[("secret", SECRET)]);
    for algorithm in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
        let token = token::sign(&claims(), &Secret::new(SECRET), algorithm).unwrap();
        ask(&door, &token).await.unwrap();
    }
    ask(&public("rsa.pub.pem"), &rsa(None)).await.unwrap();
    ask(&public("ec.pub.pem"), &ec(None)).await.unwrap();
    ask(&public("ed.pub.pem"), &ed(None)).await.unwrap();
}

#[tokio::test]
async fn the_previous_secret_counts_while_it_is_configured() {
    let door = jwt(&[("secret", SECRET), ("previous_secret", PREVIOUS)]);
    for secret in [SECRET, PREVIOUS] {
        ask(&door, &hs(&claims(), secret)).await.unwrap();
    }
    assert!(
        refusal(&jwt(&[("secret", SECRET)]), &hs(&claims(), PREVIOUS)).await.contains("signature is wrong")
    );
}

#[tokio::test]
async fn a_token_cannot_choose_how_it_is_checked() {
    let hmac = jwt(&[("secret", SECRET)]);
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        for signature in ["", "AAAA"] {
            let token = unsigned(&json!({"alg": alg, "typ": "JWT"}), &claims(), signature);
            assert!(refusal(&hmac, &token).await.contains("only HS256, HS384, HS512 is accepted"), "{alg}");
        }
    }
    // The public key is public: used as a shared secret it would let everybody sign.
    for name in ["rsa.pub.pem", "ec.pub.pem", "ed.pub.pem"] {
        let text = String::from_utf8(pem(name)).unwrap();
        for secret in [text.as_str(), text.trim_end(), &text.replace('\n', "")] {
            let why = refusal(&public(name), &hs(&claims(), secret)).await;
            assert!(why.contains("algorithm is \"HS256\""), "{why}");
        }
    }
    assert!(refusal(&hmac, &rsa(None)).await.contains("algorithm is \"RS256\""));
    assert!(refusal(&public("rsa.pub.pem"), &ec(None)).await.contains("only RS256 is accepted"));
    let narrow = jwt(&[("secret", SECRET), ("algorithms", "HS512")]);
    assert!(refusal(&narrow, &hs(&claims(), SECRET)).await.contains("only HS512"));
}

#[tokio::test]
async fn what_is_not_a_good_token_is_refused() {
    let door = jwt(&[("secret", SECRET)]);
    let good = hs(&claims(), SECRET);
    let parts: Vec<&str> = good.split('.').collect();
    let forged = URL_SAFE_NO_PAD.encode(with("sub", json!("Bob")).to_string());
    let crit = unsigned(&json!({"alg": "HS256", "crit": ["x"]}), &claims(), parts[2]);
    let cut = &good[..good.len() - 1];
    let list = hs(&json!([1]), SECRET);
    for (token, why) in [
        ("", "not a JWT"),
        ("x", "not a JWT"),
        ("a.b", "not a JWT"),
        ("a.b.c.d", "not a JWT"),
        (&format!("{}.{forged}.{}", parts[0], parts[2]), "signature is wrong"),
        (&format!("{}.{}.", parts[0], parts[1]), "signature is wrong"),
        (cut, "signature is wrong"),
        (&format!("{good}="), "signature is wrong"),
        (&list, "claims are not a JSON object"),
        (&crit, "crit"),
        (&"x".repeat(20_000), "longer than 16 KiB"),
        (&unsigned(&json!({"alg": 5}), &claims(), ""), "not a JWT"),
        (&hs(&claims(), PREVIOUS), "signature is wrong"),
    ] {
        let text = refusal(&door, token).await;
        assert!(text.contains(why), "{token}: {text}");
    }
    let nothing = door.authenticate(&Credentials::default()).await.unwrap_err();
    assert!(matches!(nothing, AuthError::Missing(_)));
}

#[tokio::test]
async fn claims_are_checked_and_refusals_are_precise() {
    let door = jwt(&[("secret", SECRET), ("issuer", "cms,old-cms"), ("audience", "carillon")]);
    let complete = |mut claims: Value| {
        claims["iss"] = json!("cms");
        claims["aud"] = json!(["other", "carillon"]);
        claims
    };
    ask(&door, &hs(&complete(claims()), SECRET)).await.unwrap();
    ask(&door, &hs(&complete(with("exp", json!(in_seconds(-20)))), SECRET)).await.expect("within the leeway");
    ask(&door, &hs(&complete(with("nbf", json!(in_seconds(20)))), SECRET)).await.expect("within the leeway");
    for (name, value, why) in [
        // The seconds may go on meanwhile.
        ("exp", json!(in_seconds(-95)), "the token expired 1m 3"),
        ("exp", json!(in_seconds(-95)), "s ago, at 20"),
        ("exp", json!(1.5), "ago, at 1970-01-01T00:00:01Z"),
        ("exp", json!(-5), "`exp` is no time"),
        ("exp", json!(in_seconds(600) * 1000), "`exp` is no time in seconds since 1970 (milliseconds"),
        ("exp", json!(in_seconds(100_000)), "ends at 20"),
        ("iat", json!(in_seconds(120)), "from the future"),
        ("iat", json!(in_seconds(-100_000)), "expired"),
        ("iat", json!("now"), "`iat` is not a number"),
        ("iat", json!(-1), "`iat` is no time"),
        ("exp", Value::Null, "has no `exp`"),
        ("exp", json!("tomorrow"), "`exp` is not a number"),
        ("nbf", json!(in_seconds(120)), "is not valid before 20"),
        ("sub", Value::Null, "has no `sub`"),
        ("sub", json!(""), "`sub` is empty"),
        ("sub", json!("  "), "`sub` is empty"),
        ("sub", json!("anna\n"), "has a control character"),
        ("sub", json!("ä".repeat(101)), "has 202 bytes"),
        ("sub", json!(7), "`sub` is not a text"),
        ("topics", json!({"comments": 42}), "`topics` is not a list of texts"),
        ("publish", json!([1]), "`publish` is not a list of texts"),
    ] {
        let text = refusal(&door, &hs(&complete(with(name, value)), SECRET)).await;
        assert!(text.contains(why), "{name}: {text}");
    }
    let mut foreign = complete(claims());
    foreign["aud"] = json!("shop");
    let text = refusal(&door, &hs(&foreign, SECRET)).await;
    assert_eq!(text, "the token's `aud` is \"shop\": it must be \"carillon\" (auth.audience)");
    let text = refusal(&door, &hs(&claims(), SECRET)).await;
    assert_eq!(text, "the token has no `iss`: it must be \"cms\" or \"old-cms\" (auth.issuer)");
}

#[test]
fn unusable_decisions_are_refused_at_the_start() {
    let p384 = fixture("p384.pub.pem");
    let (short, almost) = (fixture("rsa1024.pub.pem"), fixture("rsa2040.pub.pem"));
    let (private, rsa) = (fixture("rsa.pem"), fixture("rsa.pub.pem"));
    for (settings, why) in [
        (vec![], "nobody has decided who may connect"),
        (vec![("mode", "jwt"), ("public_key_file", p384.to_str().unwrap())], "another curve than P-256"),
        (vec![("mode", "jwt"), ("public_key_file", short.to_str().unwrap())], "less than 2048 bits"),
        (vec![("mode", "jwt"), ("public_key_file", almost.to_str().unwrap())], "less than 2048 bits"),
        (vec![("mode", "jwt"), ("public_key_file", private.to_str().unwrap())], "that is a private key"),
        (vec![("mode", "jwt"), ("public_key_file", file!())], "not a public key in PEM form"),
        (
            vec![("mode", "jwt"), ("public_key_file", rsa.to_str().unwrap()), ("algorithms", "ES256")],
            "auth.algorithms (test) does not fit",
        ),
        (vec![("mode", "jwt"), ("jwks", rsa.to_str().unwrap())], "it is not JSON"),
        (
            vec![("mode", "none"), ("default_topics", "secrets:1")],
            "auth.default_topics (test) has \"secrets:1\"",
        ),
        (vec![("mode", "none"), ("default_topics", "comments:a b")], "percent-encode"),
    ] {
        let text = try_new(&settings).expect_err(why);
        assert!(text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn everybody_is_anonymous_where_that_was_written_out() {
    let door = new(&[("mode", "none"), ("default_topics", "comments:*")]);
    let identity = door.authenticate(&Credentials::default().with_token("anything")).await.unwrap();
    assert_eq!((identity.user.as_str(), identity.expires), (ANONYMOUS, None));
    assert!(identity.grant.allows(&Subject::parse("comments:*", &areas()).unwrap(), &areas()));
    assert!(!identity.grant.allows(&Subject::parse("projects", &areas()).unwrap(), &areas()));
    assert!(!door.reads_credentials() && identity.publish.is_empty());
}

#[test]
fn tokens_are_found_where_they_may_be() {
    let token = |authorization: Option<&str>, cookies: Option<&str>, name| {
        let cookies = cookies.map(|cookies| cookies.as_bytes().to_vec());
        Credentials::from_headers(authorization.map(str::as_bytes), cookies, name).token
    };
    assert_eq!(token(Some("Bearer abc"), None, None).unwrap(), "abc");
    assert_eq!(token(Some("bearer  abc "), Some("t=x"), Some("t")).unwrap(), "abc");
    assert_eq!(token(Some("Basic abc"), Some("a=1; t=\"x=y\"; t=z"), Some("t")).unwrap(), "x=y");
    for (authorization, cookies, name) in [
        (Some("Bearer"), None, None),
        (Some("Bearer "), None, None),
        (Some("Bearerabc"), None, None),
        (None, Some("t=x"), None),
        (None, Some("tt=x; xt=y; T=z; t="), Some("t")),
    ] {
        assert_eq!(token(authorization, cookies, name), None);
    }
    let odd = b"a=\xff\xfe; \xfc=1; t=; t=\xe4; =; ;t2; t = abc; t=z".to_vec();
    let found = Credentials::from_headers(None, Some(odd.clone()), Some("t"));
    assert_eq!(found.token.as_deref(), Some("abc"), "odd cookies hide no other");
    assert_eq!(found.cookies.unwrap(), odd, "what is passed on is what came");
    assert!(!format!("{:?}", Credentials::default().with_token("abc")).contains("abc"));
}

#[tokio::test]
async fn a_minted_token_is_good() {
    let door = jwt(&[("secret", SECRET), ("issuer", "cms")]);
    let new = NewToken {
        sub: "anna".into(),
        ttl: Duration::from_mins(1),
        topics: Some(vec!["*".into()]),
        iss: Some("cms".into()),
        ..NewToken::default()
    };
    let token = new.sign(&Secret::new(SECRET), crate::config::Algorithm::Hs256).unwrap();
    let identity = ask(&door, &token).await.unwrap();
    assert!(identity.grant.allows(&Subject::parse("comments:*", &areas()).unwrap(), &areas()));
    assert!(identity.publish.is_empty());
}
