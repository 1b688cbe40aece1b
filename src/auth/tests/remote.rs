//! Keys and answers that come from elsewhere: sets of keys in files and behind URLs, and the CMS that is asked.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Instant,
};

use super::{
    SECRET, areas, ask, claims, ec, ec_key, ed, ed_key, hs, in_seconds, jwt, new, refusal, rsa, rsa_key,
    try_new,
};
use crate::{
    auth::{AuthError, Credentials, jwks::Jwks},
    config::Secret,
    protocol::Subject,
    shutdown::Tasks,
};

fn jwk(name: &str, id: &str) -> Value {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut jwk = match name {
        "rsa" => {
            let key = PublicKeyComponents::<Vec<u8>>::from(rsa_key().public());
            json!({"kty": "RSA", "alg": "RS256", "n": text(&key.n), "e": text(&key.e)})
        }
        "ec" => {
            let point = ec_key().public_key().as_ref().to_vec();
            json!({"kty": "EC", "alg": "ES256", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
        }
        _ => {
            json!({"kty": "OKP", "alg": "EdDSA", "crv": "Ed25519", "x": text(ed_key().public_key().as_ref())})
        }
    };
    jwk["kid"] = json!(id);
    jwk
}

#[tokio::test]
async fn an_rsa_key_of_a_set_may_have_a_leading_zero_but_not_less_than_2048_bits() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jwks.json");
    let modulus = URL_SAFE_NO_PAD.decode(jwk("rsa", "one")["n"].as_str().unwrap()).unwrap();
    let write = |modulus: &[u8]| {
        let mut key = jwk("rsa", "one");
        key["n"] = json!(URL_SAFE_NO_PAD.encode(modulus));
        std::fs::write(&path, json!({"keys": [key]}).to_string()).unwrap();
    };
    write(&[&[0], modulus.as_slice()].concat());
    ask(&jwt(&[("jwks", path.to_str().unwrap())]), &rsa(Some("one"))).await.unwrap();
    write(&[&[0; 128], &modulus[..128]].concat());
    let error = try_new(&[("mode", "jwt"), ("jwks", path.to_str().unwrap())]).unwrap_err();
    assert!(error.contains("of 2048 bits or more"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_set_of_keys_in_a_file_is_read_again_for_an_unknown_key_but_not_at_every_strangers_wish() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jwks.json");
    let write = |keys: Value| std::fs::write(&path, json!({"keys": keys}).to_string()).unwrap();
    let secret = json!({"kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    let encryption = {
        let mut key = jwk("rsa", "enc");
        key["use"] = json!("enc");
        key
    };
    let other = {
        let mut key = jwk("rsa", "ps");
        key["alg"] = json!("PS256");
        key
    };
    write(json!([jwk("rsa", "one"), secret, encryption, other, {"kty": "new"}]));
    let door = jwt(&[("jwks", path.to_str().unwrap())]);
    ask(&door, &rsa(Some("one"))).await.unwrap();
    ask(&door, &rsa(None)).await.expect("without a kid all keys of the kind are tried");
    for id in ["enc", "ps", "two", "s"] {
        let text = refusal(&door, &rsa(Some(id))).await;
        assert!(text.contains(&format!("`kid` \"{id}\" that fits none")), "{text}");
    }
    assert!(refusal(&door, &ec(Some("one"))).await.contains("fits none"), "a key serves its own kind only");
    assert!(refusal(&door, &hs(&claims(), SECRET)).await.contains("only RS256, ES256, EdDSA is accepted"));

    // It was read often of late: whoever comes now waits for the next read, whose moment no stranger delays.
    write(json!([jwk("ec", "two"), jwk("ed", "three")]));
    let came = Instant::now();
    let (strange, token) = (rsa(Some("six")), ec(Some("two")));
    let (_, good) = tokio::join!(refusal(&door, &strange), ask(&door, &token));
    good.expect("a rotation locks nobody out");
    assert!((2..4).contains(&came.elapsed().as_secs()), "one read in three seconds: {:?}", came.elapsed());
    tokio::time::advance(Duration::from_secs(51)).await;
    ask(&door, &ec(Some("two"))).await.unwrap();
    ask(&door, &ed(Some("three"))).await.unwrap();
    assert!(refusal(&door, &rsa(Some("one"))).await.contains("fits none"), "the key was withdrawn");
    for id in ["four", "five"] {
        write(json!([jwk("ec", "two"), jwk("rsa", id)]));
        ask(&door, &rsa(Some(id))).await.expect("a rotation is noticed with its first token");
    }

    std::fs::write(&path, "{}").unwrap();
    tokio::time::advance(Duration::from_hours(1)).await;
    ask(&door, &ec(Some("two"))).await.expect("an unreadable set keeps the last keys");
    write(json!([jwk("ed", "three")]));
    tokio::time::advance(Duration::from_secs(700)).await;
    assert!(refusal(&door, &ec(Some("two"))).await.contains("fits none"), "withdrawn, and found out by age");
}

#[tokio::test(start_paused = true)]
async fn a_key_without_a_name_is_read_again_when_a_signature_is_wrong() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jwks.json");
    let unnamed = |mut key: Value| {
        key.as_object_mut().unwrap().remove("kid");
        key
    };
    let write = |key: Value| std::fs::write(&path, json!({"keys": [key]}).to_string()).unwrap();
    let before = {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let mut key = jwk("ed", "one");
        key["x"] = json!(URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()));
        unnamed(key)
    };
    write(before.clone());
    let door = jwt(&[("jwks", path.to_str().unwrap())]);
    assert!(refusal(&door, &ed(None)).await.contains("signature is wrong"));
    write(unnamed(jwk("ed", "one")));
    ask(&door, &ed(None)).await.expect("a rotation is noticed with its first token");
    // Strangers with wrong signatures have it read no more often than those who name unknown keys.
    write(before);
    let came = Instant::now();
    for _ in 0..10 {
        refusal(&door, &(ed(None) + "x")).await;
    }
    assert!(came.elapsed() > Duration::from_secs(15), "ten reads in {:?}", came.elapsed());
    write(unnamed(jwk("ed", "one")));
    ask(&door, &ed(None)).await.expect("a rotation locks nobody out");
}

#[tokio::test]
async fn a_key_of_a_set_is_used_only_for_what_it_says() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("jwks.json");
    for (operations, good) in [
        (json!(["verify"]), true),
        (json!(["sign", "verify"]), true),
        (json!(["sign"]), false),
        (json!(["encrypt", "wrapKey"]), false),
        (json!([]), false),
    ] {
        let mut key = jwk("ec", "one");
        key["key_ops"] = operations.clone();
        std::fs::write(&path, json!({"keys": [key, jwk("ed", "two")]}).to_string()).unwrap();
        let door = jwt(&[("jwks", path.to_str().unwrap())]);
        assert_eq!(ask(&door, &ec(Some("one"))).await.is_ok(), good, "{operations}");
    }
}

#[tokio::test]
async fn where_keys_and_callback_are_is_told_to_nobody() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let url = format!("http://{gone}/inner/place");
    for door in [new(&[("mode", "callback"), ("callback_url", &url)]), jwt(&[("jwks", &url)])] {
        let text = refusal(&door, &rsa(Some("one"))).await;
        assert!(text.contains("it cannot be reached"), "{text}");
        for part in [&gone.port().to_string(), "127.0.0.1", "inner"] {
            assert!(!text.contains(part), "{text}");
        }
    }
}

/// A CMS that answers with what was last put into it, and remembers what it was asked.
struct FakeCms {
    url: String,
    answer: Arc<Mutex<(u16, String)>>,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: Tasks,
}

impl FakeCms {
    async fn start(answer: (u16, String)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/who", listener.local_addr().unwrap());
        let (answer, asked, tasks) =
            (Arc::new(Mutex::new(answer)), Arc::<Mutex<Vec<_>>>::default(), Tasks::new());
        let (answers, log) = (answer.clone(), asked.clone());
        tasks.spawn_until_end(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && socket.read_buf(&mut request).await.unwrap_or(0) > 0 {}
                // Byte by byte, so that what is passed on can be compared with what came.
                log.lock().unwrap().push(request.iter().map(|byte| char::from(*byte)).collect());
                let (status, body) = answers.lock().unwrap().clone();
                if status == 0 {
                    continue;
                }
                let head = format!("HTTP/1.1 {status} X\r\nlocation: /login\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                socket.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
        Self { url, answer, asked, _tasks: tasks }
    }

    fn answer(&self, status: u16, body: &Value) {
        *self.answer.lock().unwrap() = (status, body.to_string());
    }

    fn times_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[tokio::test]
async fn a_set_of_keys_behind_a_url_may_come_late_and_go_away() {
    let cms = FakeCms::start((503, String::new())).await;
    let door = jwt(&[("jwks", &cms.url)]);
    let text = refusal(&door, &rsa(Some("one"))).await;
    assert!(text.contains("cannot be checked now") && text.contains("503"), "{text}");
    refusal(&door, &rsa(Some("one"))).await;
    assert_eq!(cms.times_asked(), 1, "a source that fails is left alone for a while");

    let jwks = Jwks::url(&Secret::new(cms.url.as_str()), None).unwrap().eager();
    let find = async |id| jwks.find(Some(id), crate::config::Algorithm::Rs256).await.map(|keys| keys.len());
    assert!(matches!(find("one").await, Err(AuthError::Away(_))));
    cms.answer(200, &json!({"keys": [jwk("rsa", "one")]}));
    assert_eq!(find("one").await, Ok(1));
    let before = cms.times_asked();
    assert_eq!(find("one").await, Ok(1));
    assert_eq!(cms.times_asked(), before, "a known key asks nobody");
    cms.answer(500, &json!(""));
    assert!(matches!(find("two").await, Err(AuthError::Refused(_))));
    assert_eq!(find("one").await, Ok(1), "the last keys stay");
}

#[tokio::test]
async fn the_cms_vouches_for_its_own_cookies() {
    let cms = FakeCms::start((
        200,
        json!({"sub": "anna", "topics": ["comments:1"], "expires_in": 900}).to_string(),
    ))
    .await;
    let door = new(&[("mode", "callback"), ("callback_url", &cms.url)]);
    let cookies = Credentials::from_headers(None, Some(b"a=\xff; session=abc".to_vec()), None);
    let anna = door.authenticate(&cookies).await.unwrap();
    assert_eq!(anna.user, "anna");
    assert!((in_seconds(895)..=in_seconds(905)).contains(&anna.expires.unwrap().cast_signed()));
    assert!(anna.grant.allows(&Subject::parse("comments:1", &areas()).unwrap(), &areas()));
    let request = cms.asked.lock().unwrap()[0].to_lowercase();
    assert!(
        request.starts_with("get /who ") && request.contains("cookie: a=\u{ff}; session=abc\r\n"),
        "{request}"
    );
    assert!(!request.contains("authorization"));

    cms.answer(200, &json!({"sub": "bob", "expires_in": 900}));
    assert_eq!(door.authenticate(&cookies).await.unwrap().user, "anna", "believed for a moment");
    let other = Credentials::from_headers(None, Some(b"a=1; session=abd".to_vec()), None);
    assert_eq!(door.authenticate(&other).await.unwrap().user, "bob", "other cookies are somebody else");
    assert_eq!(door.renew(&cookies).await.unwrap().user, "bob", "a renewal asks anew");
    let basic = Credentials::from_headers(Some(b"Basic Zm9v"), None, None);
    door.authenticate(&basic).await.unwrap();
    door.authenticate(&Credentials::default().with_token("tok")).await.unwrap();
    let asked = cms.asked.lock().unwrap().join("").to_lowercase();
    assert!(
        asked.contains("authorization: basic zm9v\r\n") && asked.contains("authorization: bearer tok\r\n")
    );
    let before = cms.times_asked();
    assert!(matches!(door.authenticate(&Credentials::default()).await, Err(AuthError::Missing(_))));
    assert_eq!(cms.times_asked(), before, "nobody is not worth a question");
}

#[tokio::test]
async fn whatever_is_not_a_clear_yes_from_the_cms_is_a_no() {
    let cms = FakeCms::start((200, String::new())).await;
    let door = new(&[("mode", "callback"), ("callback_url", &cms.url)]);
    let yes = json!({"sub": "anna", "expires_in": 900});
    for (status, body, why) in [
        (401, yes.clone(), "refused (its answer was 401"),
        (302, yes.clone(), "302 Found, a redirect, which is not followed"),
        (204, yes.clone(), "refused"),
        (500, yes.clone(), "500"),
        (200, json!("<html>"), "the answer is not"),
        (200, json!({"topics": []}), "the answer is not"),
        (200, json!({"sub": "anna"}), "the answer is not"),
        (200, json!({"sub": "", "expires_in": 900}), "`sub` is empty"),
        (200, json!({"sub": "anna", "expires_in": 0}), "already ended"),
        (200, json!({"sub": "anna", "topics": "x", "expires_in": 9}), "the answer is not"),
        (0, yes.clone(), "auth.callback_url"),
    ] {
        cms.answer(status, &body);
        let text = refusal(&door, "secret-token").await;
        assert!(text.contains(why), "{status} {body}: {text}");
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let door = new(&[("mode", "callback"), ("callback_url", &url)]);
    assert!(refusal(&door, "secret-token").await.contains("no answer within 3 s"));
}
