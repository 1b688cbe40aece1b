//! Topics: what is one, and how each is spelled.

use super::*;

fn areas() -> Areas {
    Areas::new(["comments", "notifications"], ["notifications"], []).unwrap()
}

#[test]
fn topics_are_read_to_the_letter() {
    for good in
        ["comments", "comments:42", "comments:a:b", "comments:%2A", "comments:ä/ö", "notifications:Anna"]
    {
        assert_eq!(Topic::parse(good, &areas()).unwrap().as_str(), good);
    }
    let long = format!("comments:{}", "k".repeat(201));
    for bad in [
        "",
        "Comments",
        "content",
        "comments:",
        "comments:a b",
        "comments:*",
        "comments:a,b",
        "comments:{x}",
        "comments:a\nb",
        "comments:%",
        "comments:%2",
        "comments:%zz",
        "comments:\u{85}",
        &long,
        "comments :1",
        ":1",
    ] {
        assert!(Topic::parse(bad, &areas()).is_err(), "{bad:?} passed");
    }
}

#[test]
fn private_keys_have_one_spelling() {
    let folding = areas().with_naming(Naming::Folded);
    for (text, exact, folded) in [
        ("notifications:Anna", "notifications:Anna", "notifications:anna"),
        (
            "notifications:DOM\\Anna%20Ä%2A",
            "notifications:DOM\\Anna%20Ä%2A",
            "notifications:dom\\anna%20ä%2A",
        ),
        ("notifications:İΣ", "notifications:İΣ", "notifications:iσ"),
        ("comments:An%6Ea", "comments:An%6Ea", "comments:An%6Ea"),
        ("notifications", "notifications", "notifications"),
    ] {
        for (areas, right) in [(&areas(), exact), (&folding, folded)] {
            assert_eq!(Topic::parse_named(text, areas).unwrap().as_str(), right);
            assert!(Topic::parse_published(right, areas).is_ok());
            assert_eq!(Topic::parse_published(text, areas).is_ok(), text == right, "{text}");
        }
    }
    let error = Topic::parse_published("notifications:ANNA", &folding).unwrap_err().to_string();
    assert!(error.contains("in lower case: write \"notifications:anna\""), "{error}");
}

#[test]
fn other_spellings_of_a_private_key_are_told_the_right_one() {
    for areas in [areas(), areas().with_naming(Naming::Folded)] {
        for (wrong, right) in [
            ("notifications:%61nna", "\"notifications:anna\""),
            ("notifications:a%2ab", "\"notifications:a%2Ab\""),
            ("notifications:a%2Fb", "\"notifications:a/b\""),
            ("notifications:%C3%A4", "\"notifications:ä\""),
            ("notifications:a%FF", "is not valid UTF-8"),
            ("notifications:a%00", "has a control character"),
            ("notifications:%C2%85", "has a control character"),
        ] {
            for error in [Topic::parse_published(wrong, &areas), Topic::parse_named(wrong, &areas)] {
                let error = error.unwrap_err().to_string();
                assert!(error.contains(right), "{error}");
            }
        }
    }
    let long = format!("notifications:{}", "Ⱥ".repeat(100));
    assert!(Topic::parse_named(&long, &areas()).is_ok());
    assert!(Topic::parse_named(&long, &areas().with_naming(Naming::Folded)).is_err());
}
