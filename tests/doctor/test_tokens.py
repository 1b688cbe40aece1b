"""What can be wrong with a token, and what the doctor says of it; the token itself is never printed."""

import time

from kit.stage import token


def said_of(doctor, node, token_file, text):
    said = doctor(node.public(), "--token-file", token_file(text))
    assert text not in said.text
    return said


def test_an_expired_token(node, doctor, token_file):
    now = int(time.time())
    text = token("anna", aud="carillon", iat=now - 4500, exp=now - 3600)
    said = said_of(doctor, node, token_file, text)
    assert said.code == 1 and said.bad() == ["token"], said.text
    line = said.line("token")
    assert "The node refuses the token: the token expired 1h" in line
    assert "Let the CMS give a fresh token" in line and "for 15m." in line
    assert "There is no session to ask." in said.line("round trip")


def test_a_token_for_somebody_else(node, doctor, token_file):
    said = said_of(doctor, node, token_file, token("anna", aud="shop"))
    assert said.bad() == ["token"], said.text
    line = said.line("token")
    assert 'The node refuses the token: the token\'s `aud` is "shop": it must be "carillon" (auth.audience).' in line
    assert 'or add "shop" to auth.audience.' in line


def test_a_token_of_another_key(node, doctor, token_file):
    text = token("anna", aud="carillon", secret="another-secret-that-the-node-does-not-know")
    line = said_of(doctor, node, token_file, text).line("token")
    assert "The node refuses the token: the token's signature is wrong" in line
    assert 'The CMS signs with another key than the nodes check with (alg "HS256", kid nothing)' in line


def test_a_token_from_a_clock_that_is_ahead(node, doctor, token_file):
    now = int(time.time())
    text = token("anna", aud="carillon", nbf=now + 600, exp=now + 1200)
    assert "The clock of the CMS is ahead of the node's" in said_of(doctor, node, token_file, text).line("token")


def test_what_is_no_token(node, doctor, token_file):
    line = said_of(doctor, node, token_file, "Zm9v").line("token")
    assert "The node refuses the token: that is not a JWT" in line


def test_no_token_where_one_is_needed(node, doctor):
    said = doctor(node.public(), auth__mode=None, auth__secret=None, auth__audience=None)
    assert said.code == 0 and said.bad() == [], said.text
    assert "The node wants a token, and none was given" in said.line("token")
    assert "--token-file FILE" in said.line("token")


def test_no_token_where_none_is_needed(site, doctor):
    node = site.node(auth__mode="none", auth__secret=None)
    said = doctor(node.public(), auth__mode=None, auth__secret=None, auth__audience=None)
    assert said.code == 0
    assert "None was given and none is needed: the node lets anonymous in." in said.line("token")


def test_a_good_token(node, doctor, token_file):
    said = said_of(doctor, node, token_file, token("anna", ["comments:42", "projects"], aud="carillon"))
    assert said.code == 0 and "The node accepts it: anna for another " in said.line("token"), said.text
    assert "; topics: comments:42, projects." in said.line("token")
