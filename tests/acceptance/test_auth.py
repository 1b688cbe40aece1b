"""Who may connect: forged, expired and foreign tokens, foreign pages; and what each is told."""

import asyncio
import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
import websockets
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kit.editors import Editor, connect_message
from kit.stage import AUTHORISED, SECRET, http, note, token


def encoded(part):
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def claims(**more):
    return {"sub": "anna", "exp": int(time.time()) + 600, "topics": ["*"], **more}


def unsigned(algorithm):
    return f"{encoded({'alg': algorithm, 'typ': 'JWT'})}.{encoded(claims())}."


def signed_with(key, algorithm="HS256"):
    """HMAC with any bytes as key, as no library would let one do it."""
    body = f"{encoded({'alg': algorithm, 'typ': 'JWT'})}.{encoded(claims())}"
    return f"{body}.{encoded(hmac.new(key, body.encode(), hashlib.sha256).digest())}"


async def refused(node, bearer):
    """In `connect` it is 4401; with the handshake it is 401 with its code."""
    editor = await Editor.open(node, "anna", [], bearer=bearer, welcome=False)
    assert (await editor.end_of_session())[0] == 4401, bearer
    assert editor.of("welcome") == []
    with pytest.raises(websockets.exceptions.InvalidStatus) as failure:
        await Editor.dial(node, {"Authorization": f"Bearer {bearer}"})
    answer = failure.value.response
    problem = json.loads(answer.body)
    assert (answer.status_code, problem["code"]) == (401, "unauthenticated"), problem
    assert bearer not in node.output(), "a token in the log"
    return problem["detail"]


async def accepted(node, bearer):
    editor = await Editor.open(node, "anna", ["comments:1"], bearer=bearer)
    assert editor.of("welcome")[0]["user"] == "anna"
    await editor.close()
    editor = await Editor.dial(node, {"Authorization": f"Bearer {bearer}"})
    await editor.send({"type": "connect", "topics": ["comments:1"]})
    assert (await editor.message("welcome"))["refused"] == []
    await editor.close()


async def test_forged_expired_and_foreign_tokens_are_refused_wherever_they_come(site):
    """With a shared secret."""
    node = site.node(auth__issuer=["cms"], auth__audience=["carillon"])
    right = {"iss": "cms", "aud": "carillon"}
    good = token("anna", ["*"], **right)
    await accepted(node, good)
    await accepted(node, token("anna", ["*"], iss="cms", aud=["other", "carillon"]))
    await accepted(node, token("anna", ["*"], **right, exp=int(time.time()) - 10))
    head, body, signature = good.split(".")
    other = jwt.decode(good, options={"verify_signature": False}) | {"sub": "admin"}
    for bearer in (
        token("anna", ["*"], **right, exp=int(time.time()) - 60),
        token("anna", ["*"], iss="cms", aud="somebody-else"),
        token("anna", ["*"], iss="cms"),
        token("anna", ["*"], iss="somebody-else", aud="carillon"),
        token("anna", ["*"], **right, exp=None),
        token(None, ["*"], **right),
        token("", ["*"], **right),
        token("anna", ["*"], **right, nbf=int(time.time()) + 600),
        token("anna", ["*"], **right, secret="another-secret-that-is-long-enough-0123456789"),
        f"{head}.{encoded(other)}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        unsigned("none"),
        unsigned("None"),
        unsigned("nOnE"),
        "nonsense",
        "..",
        "a.b.c",
    ):
        assert await refused(node, bearer)


async def test_the_algorithm_is_the_configurations_choice_never_the_tokens(site, tmp_path):
    """RSA keys: a token signed by HMAC with the public key as its secret, the classic confusion."""
    private = rsa.generate_private_key(65537, 2048)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "rsa.pem").write_bytes(pem)
    node = site.node(auth__secret=None, auth__public_key_file=tmp_path / "rsa.pem")
    await accepted(node, jwt.encode(claims(), private, algorithm="RS256"))
    for bearer in (
        signed_with(pem),
        signed_with(pem.rstrip(b"\n")),
        signed_with(der),
        signed_with(pem, "RS256"),
        signed_with(b""),
        jwt.encode(claims(), SECRET, algorithm="HS256"),
        jwt.encode(claims(), rsa.generate_private_key(65537, 2048), algorithm="RS256"),
        jwt.encode(claims(), private, algorithm="RS512"),
        unsigned("RS256"),
        unsigned("none"),
    ):
        await refused(node, bearer)


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "HS384", "HS512"])
async def test_the_other_algorithms(site, tmp_path, algorithm):
    """Keys as PEM; the secret for every HS."""
    if algorithm.startswith("HS"):
        node = site.node(auth__algorithms=[algorithm])
        await accepted(node, token("anna", ["*"], algorithm=algorithm))
        await refused(node, token("anna", ["*"], algorithm="HS256"))
        return
    private = ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    node = site.node(auth__secret=None, auth__public_key_file=tmp_path / "key.pem")
    await accepted(node, jwt.encode(claims(), private, algorithm=algorithm))
    await refused(node, signed_with(pem))


async def test_secrets_rotate_without_anybody_noticing(site, tmp_path):
    """The previous secret is still good; secrets may come from files."""
    (tmp_path / "now").write_text("the-new-secret-0123456789-0123456789-0123456789\n")
    (tmp_path / "before").write_text(SECRET)
    node = site.node(auth__secret=None, auth__secret_file=tmp_path / "now", auth__previous_secret_file=tmp_path / "before")
    await accepted(node, token("anna", ["*"]))
    await accepted(node, token("anna", ["*"], secret="the-new-secret-0123456789-0123456789-0123456789"))
    await refused(node, token("anna", ["*"], secret="neither-of-the-two-secrets-0123456789"))


async def test_grants_decide_topics(site):
    """Exact topics, `area:*`, `*`, the default, and the editor's own private topic, which needs none."""
    node = site.node(auth__default_topics=["projects"])
    topics = ["comments:1", "comments:2", "comments", "comments:*", "projects", "project-items:*", "notifications:anna"]
    cases = {
        ("comments:1",): {"comments:1", "comments", "notifications:anna"},
        ("comments:*",): {"comments:1", "comments:2", "comments", "comments:*", "notifications:anna"},
        ("comments",): {"comments", "notifications:anna"},
        (): {"notifications:anna"},
        None: {"projects", "notifications:anna"},
        ("*",): set(topics),
    }
    for grant, allowed in cases.items():
        bearer = token("anna", list(grant) if grant is not None else None)
        for topic in topics:
            editor = await Editor.open(node, "anna", [topic], bearer=bearer)
            followed = editor.of("welcome")[0]["refused"] == []
            expected = topic in allowed
            # Asking for an area alone needs a grant of its own; `comments:1` brings it along.
            if topic == "comments" and grant == ("comments:1",):
                await editor.close()
                continue
            assert followed == expected, (grant, topic, editor.of("welcome")[0])
            await editor.close()


async def test_a_foreign_origin_is_refused_and_the_compared_values_are_named(site):
    """Allowed origins and the node's own host pass; near misses do not."""
    node = site.node(http__allowed_origins=["https://cms.example.com"])
    for origin in ("https://cms.example.com", f"http://127.0.0.1:{node.port}", None):
        editor = await Editor.dial(node, {"Origin": origin} if origin else None)
        await editor.send(connect_message("anna", []))
        await editor.message("welcome")
        await editor.close()
    for origin in (
        "https://evil.example.com",
        "http://cms.example.com",
        "https://cms.example.com.evil.com",
        "https://cms.example.com:8443",
        "https://xcms.example.com",
        "null",
        "https://127.0.0.1",
        "",
    ):
        with pytest.raises(websockets.exceptions.InvalidStatus) as failure:
            await Editor.dial(node, {"Origin": origin})
        problem = json.loads(failure.value.response.body)
        assert (failure.value.response.status_code, problem["code"]) == (403, "origin"), origin
        text = json.dumps(problem)
        assert origin in text and "https://cms.example.com" in text, problem
    with pytest.raises(websockets.exceptions.InvalidStatus):
        await Editor.dial(node, {"Origin": "https://evil.example.com", "X-Forwarded-Host": "evil.example.com", "X-Forwarded-Proto": "https"})


async def test_a_token_runs_out_and_can_be_renewed(site):
    """`token-expiring`, then 4401; a fresh one for the same `sub` goes on, for another it is `bad-token`."""
    node = site.node()
    soon = lambda: token("anna", ["comments:*"], exp=int(time.time()) + 4)  # noqa: E731
    renewed = await Editor.open(node, "anna", ["comments:1"], bearer=soon())
    expiring = await Editor.open(node, "anna", ["comments:1"], bearer=soon())
    for editor in (renewed, expiring):
        assert (await editor.message("token-expiring"))["expires_in"] <= 30
    await renewed.send({"type": "token", "token": token("bert", ["*"])})
    assert (await renewed.message("error"))["code"] == "bad-token"
    await renewed.send({"type": "token", "token": "nonsense"})
    assert (await renewed.message("error", 2))["code"] == "bad-token"
    await renewed.send({"type": "token", "token": token("anna", ["comments:*"])})
    assert (await renewed.message("token-accepted"))["expires_in"] > 3000
    assert (await expiring.end_of_session(60))[0] == 4401
    site.record("comments:1", note(1))
    await renewed.until("the event", lambda e: e.numbers() == [1])
    await renewed.send({"type": "token", "token": token("anna", ["projects"])})
    assert "comments:1" in (await renewed.message("unsubscribed"))["topics"]
    site.record("comments:1", note(2))
    await renewed.send({"type": "subscribe", "topics": ["projects"]})
    await renewed.message("subscribed")
    await renewed.in_step()
    assert renewed.numbers() == [1]


async def test_a_revoked_editor_is_closed_on_all_nodes(site):
    """`POST /disconnect`: 4403 everywhere, nobody else is touched."""
    nodes = [site.node(), site.node()]
    annas = [await Editor.open(node, "anna", ["comments:1"]) for node in nodes for _ in range(2)]
    others = [await Editor.open(node, name, ["comments:1"]) for node in nodes for name in ("bert", "Anna")]
    status, _, body = http("POST", nodes[1].internal("/disconnect"), {"user": "anna"}, {"Content-Type": "application/json", **AUTHORISED})
    assert status in (200, 202, 204), body
    closed = await asyncio.gather(*(anna.end_of_session() for anna in annas))
    assert {code for code, _ in closed} == {4403}
    for node in nodes:
        # What they had opens no door any more, anywhere; nor does what clocks that differ may have made before.
        await refused(node, token("anna", ["*"], iat=int(time.time()) - 10))
        await refused(node, token("anna", ["*"], iat=int(time.time()) + 1))
    site.record("comments:1", note(1))
    for other in others:
        await other.until("the event", lambda e: e.numbers() == [1])


async def test_mode_none_lets_everybody_in_as_anonymous_and_follows_the_default_topics(site):
    """Only when written out."""
    node = site.node(auth__mode="none", auth__secret=None, auth__default_topics=["comments:*"])
    editor = await Editor.dial(node)
    await editor.send({"type": "connect", "topics": ["comments:1", "projects"]})
    welcome = await editor.message("welcome")
    assert welcome["user"] == "anonymous"
    assert [entry["topic"] for entry in welcome["refused"]] == ["projects"]
