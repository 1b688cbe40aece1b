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

#[test]
fn null_is_as_if_it_were_missing() {
    let plain = ClientMessage::Connect(Connect::default());
    for text in [
        r#"{"type":"connect","topics":null}"#,
        r#"{"type":"connect","topics":null,"token":null,"client":null,"resume":null}"#,
    ] {
        assert_eq!(ClientMessage::parse(text).as_ref(), Ok(&plain), "{text}");
    }
    let resumed = |positions: &[(&str, &str)]| {
        let positions = positions.iter().map(|(topic, at)| ((*topic).into(), (*at).into())).collect();
        Some(Resume { positions, ..Resume::default() })
    };
    for (resume, right) in [
        (r#"{"at":null,"positions":null}"#, resumed(&[])),
        (r#"{"positions":{"comments:42":null,"projects":"x.1-2"}}"#, resumed(&[("projects", "x.1-2")])),
    ] {
        let connect = ClientMessage::parse(&format!(r#"{{"type":"connect","resume":{resume}}}"#));
        let right_connect = Connect { resume: right.clone(), ..Connect::default() };
        assert_eq!(connect, Ok(ClientMessage::Connect(right_connect)), "{resume}");
        let subscribe = format!(r#"{{"type":"subscribe","topics":["projects"],"resume":{resume}}}"#);
        let right = ClientMessage::Subscribe { topics: vec!["projects".into()], resume: right };
        assert_eq!(ClientMessage::parse(&subscribe), Ok(right), "{resume}");
    }
}

#[test]
fn what_must_be_there_may_not_be_null() {
    for text in [
        r#"{"type":null}"#,
        r#"{"type":"subscribe","topics":null}"#,
        r#"{"type":"unsubscribe","topics":null}"#,
        r#"{"type":"token","token":null}"#,
        r#"{"type":"connect","topics":[null]}"#,
        r#"{"type":"connect","topics":{}}"#,
        r#"{"type":"connect","resume":{"positions":[]}}"#,
        r#"{"type":"connect","resume":{"positions":{"comments:42":7}}}"#,
    ] {
        assert!(ClientMessage::parse(text).is_err(), "{text}");
    }
}
