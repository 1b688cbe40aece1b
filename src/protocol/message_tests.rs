//! Messages: what clients may write, and the names that nodes give.

use super::*;

#[test]
fn client_messages_are_read() {
    let text = r#"{"type":"connect","topics":["comments:42"],"resume":{"at":7,"positions":{"comments":"x"}},"new":1}"#;
    let ClientMessage::Connect(connect) = ClientMessage::parse(text).unwrap() else {
        panic!("not a connect")
    };
    assert_eq!(connect.topics, ["comments:42"]);
    assert_eq!(connect.resume.unwrap().positions["comments"], "x");
    assert_eq!(ClientMessage::parse(r#"{"type":"ping"}"#), Ok(ClientMessage::Ping));
    assert_eq!(ClientMessage::parse(r#"{"type":"dance"}"#), Ok(ClientMessage::Unknown("dance".into())));
    for bad in
        ["", "[]", "{}", r#"{"type":7}"#, r#"{"type":"subscribe"}"#, r#"{"type":"connect","topics":"a"}"#]
    {
        assert!(ClientMessage::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_list_of_fields_is_no_message() {
    for bad in
        [r#"["ping"]"#, r#"["token"]"#, r#"{"type":"connect","resume":[7,{"comments":"x"}]}"#, r#"[["a"]]"#]
    {
        assert!(ClientMessage::parse(bad).is_err(), "{bad}");
    }
    let null = r#"{"type":"connect","resume":null}"#;
    assert_eq!(ClientMessage::parse(null), Ok(ClientMessage::Connect(Connect::default())));
}

#[test]
fn errors_never_repeat_what_the_client_sent() {
    let error = ClientMessage::parse(r#"{"type":"token","token":["secret"]}"#).unwrap_err();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn node_messages_have_the_names_of_the_contract() {
    let message = NodeMessage::closing(CloseCode::Drain, "drain", Some(1834));
    assert_eq!(
        message.json(),
        r#"{"type":"closing","code":1012,"reason":"drain","reconnect_after_ms":1834}"#
    );
    assert_eq!(
        NodeMessage::TokenExpiring { expires_in: 30 }.json(),
        r#"{"type":"token-expiring","expires_in":30}"#
    );
}
