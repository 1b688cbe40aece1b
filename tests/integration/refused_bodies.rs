//! Whoever sends a body that is refused reads why. Clients of most languages send all of it before they read anything, so a node that
//! answered and closed with bytes unread would break their pipe and take the answer back (RFC 9112, 9.6).

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::node::{Node, read_head, request, token, within};

/// More than the buffers of a loopback connection take in.
const LARGE: usize = 15 << 20;

#[tokio::test]
async fn who_sends_all_of_it_first_reads_why_it_is_refused() {
    let node = Node::start(&[]).await;
    let body = vec![b' '; LARGE];
    let editor = format!("Bearer {}", token("anna", &["*"]));
    let json = ("Content-Type", "application/json");
    let publisher = ("Authorization", "Bearer the publish token of the tests");
    let cases: [(_, &str, &str, &[_], u16); 12] = [
        (node.internal, "POST", "/publish", &[publisher], 413),
        (node.internal, "POST", "/disconnect", &[publisher], 413),
        (node.internal, "POST", "/publish", &[], 401),
        (node.internal, "POST", "/publish", &[("Expect", "something-else")], 401),
        (node.internal, "POST", "/refresh", &[("Authorization", "Bearer nonsense")], 401),
        (node.internal, "POST", "/publish?live=1&live=1", &[publisher], 400),
        (node.internal, "PUT", "/publish", &[publisher], 405),
        (node.internal, "POST", "/publish", &[("Host", "evil.example")], 403),
        (node.public, "POST", "/realtime/poll", &[json, ("Authorization", &editor)], 413),
        (node.public, "POST", "/realtime/events", &[("Authorization", &editor)], 415),
        (node.public, "POST", "/realtime/nowhere", &[], 404),
        (node.public, "POST", "/realtime/poll", &[("Host", "a b")], 400),
    ];
    for (address, method, path, headers, status) in cases {
        let answer = request(address, method, path, headers, &body).await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}");
    }
}

#[tokio::test]
async fn who_asks_before_they_send_need_not_send() {
    let node = Node::start(&[]).await;
    let mut socket = TcpStream::connect(node.internal).await.unwrap();
    let head =
        b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    within("the refusal", async {
        socket.write_all(head).await.unwrap();
        assert_eq!(read_head(&mut socket).await.expect("an answer").0.status, 401);
    })
    .await;
}

#[tokio::test]
async fn a_body_without_end_is_not_read_for_ever() {
    let node = Node::start(&[]).await;
    let mut socket = TcpStream::connect(node.internal).await.unwrap();
    let head = b"POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    within("the end of the connection", async {
        socket.write_all(head).await.unwrap();
        while socket.write_all(&chunk).await.is_ok() {}
    })
    .await;
    // And who sends nothing more is answered, too.
    let mut socket = TcpStream::connect(node.internal).await.unwrap();
    within("the refusal", async {
        socket.write_all(head).await.unwrap();
        let (answer, _) = read_head(&mut socket).await.expect("an answer");
        assert_eq!(answer.status, 401);
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
}
