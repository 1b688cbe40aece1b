//! The demo in front of strangers: whose page may use it, and what its tokens are worth elsewhere.

use std::{io::Write as _, time::Duration};

use carillon::{
    auth::NewToken,
    config::{Algorithm, Secret},
};
use tempfile::{NamedTempFile, TempDir};

use crate::{
    cli_dev::{FREE, address_after, carillon, dev, said},
    support::node::{Answer, Node, request},
};

const PRODUCTION: &str = "production-secret-production-secret-1234";
const ASK: &[u8] = br#"{"editor":"anna","ttl":600}"#;

async fn token_from(node: std::net::SocketAddr, headers: &[(&str, &str)]) -> Answer {
    request(node, "POST", "/demo/api/token", headers, ASK).await
}

#[tokio::test]
async fn only_the_demos_own_page_writes() {
    let listed = "https://cms.example.com";
    let node = Node::start(&[
        ("demo.enabled", "true"),
        ("http.allowed_origins", listed),
        ("http.trusted_proxies", "127.0.0.1"),
    ])
    .await;
    let (own, plain) = (format!("http://{}", node.public), ("Content-Type", "text/plain"));
    let forwarded = [("X-Forwarded-Host", "demo.example.com"), ("X-Forwarded-Proto", "https")];
    let good: [&[(&str, &str)]; 4] = [
        &[],
        &[("Origin", &own)],
        &[("Origin", &own), ("Sec-Fetch-Site", "same-origin")],
        &[("Origin", "https://demo.example.com"), forwarded[0], forwarded[1]],
    ];
    for headers in good {
        assert_eq!(token_from(node.public, headers).await.status, 200, "{headers:?}");
    }
    let bad: [&[(&str, &str)]; 7] = [
        &[("Origin", "https://evil.example"), plain],
        &[("Origin", "null"), plain],
        &[("Origin", listed), plain],
        &[("Sec-Fetch-Site", "cross-site"), plain],
        &[("Sec-Fetch-Site", "same-site"), plain],
        &[("Origin", &own), ("Sec-Fetch-Site", "cross-site")],
        &[("Origin", "http://demo.example.com"), forwarded[0], forwarded[1]],
    ];
    for headers in bad {
        assert_eq!(token_from(node.public, headers).await.problem(), (403, "origin".into()), "{headers:?}");
        let body = br#"{"editor":"anna","text":"from elsewhere"}"#;
        let write = request(node.public, "POST", "/demo/api/projects/42/comments", headers, body).await;
        assert_eq!(write.problem(), (403, "origin".into()), "{headers:?}");
    }
    let comments = node.public_get("/demo/api/projects/42/comments", &[bad[0][0]]).await;
    assert_eq!(comments.status, 200, "reading is no write");
    assert!(!comments.text().contains("from elsewhere"), "{}", comments.text());
}

#[tokio::test]
async fn a_production_file_lends_the_demo_no_secret() {
    let home = TempDir::new().unwrap();
    let secret = home.path().join("secret");
    std::fs::write(&secret, format!("{PRODUCTION}\n")).unwrap();
    let as_file = format!("secret_file = {:?}", secret.display());
    for key in [format!("secret = \"{PRODUCTION}\""), as_file] {
        let mut file = NamedTempFile::new().unwrap();
        write!(file, "[auth]\nmode = \"jwt\"\n{key}\n").unwrap();
        let file = file.path().to_str().unwrap();
        let (_node, lines) = dev(home.path(), &[&["--config", file][..], &FREE].concat());
        let public = address_after(&lines, "Open the demo");

        let minted = token_from(public, &[]).await;
        let minted = minted.json()["token"].as_str().unwrap().to_owned();
        let printed = lines.iter().find_map(|line| line.split("Bearer ").nth(1)).unwrap();
        let printed = printed.split('\'').next().unwrap().to_owned();
        for token in [&minted, &printed] {
            let shown = ["token", "show", "--config", file, token];
            let shown = carillon(home.path(), &shown).output().unwrap();
            assert!(!shown.status.success() && said(&shown).contains("signature"), "{}", said(&shown));
        }
        let topics = Some(vec!["*".to_owned()]);
        let own = NewToken { sub: "bob".into(), ttl: Duration::from_secs(60), topics, ..NewToken::default() };
        let own = own.sign(&Secret::new(PRODUCTION), Algorithm::Hs256).unwrap();
        for token in [&minted, &printed, &own] {
            let bearer = format!("Bearer {token}");
            let poll = "/realtime/poll?topics=comments:42";
            let answer = request(public, "GET", poll, &[("Authorization", &bearer)], b"").await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
}
