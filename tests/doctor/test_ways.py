"""What can be wrong on the way from a browser to a node; each test asserts the sentence that is printed."""

import subprocess

import pytest
from setups import COMPRESSING, IGNORANT, UPGRADE, certificate, haproxy, keeps_handshakes, nginx, web_page
from kit.stage import PROGRAM, environment, free_port


def test_a_node_that_is_well(node, doctor):
    said = doctor(node.public(), idle=1)
    assert said.code == 0 and said.bad() == [], said.text
    assert f"127.0.0.1 is 127.0.0.1, port {node.port} is open" in said.line("address")
    assert "answers: websocket, sse, poll; heartbeat 25 s." in said.line("node")
    assert "The clocks agree to 5 s." in said.line("clock")
    assert "A WebSocket opens (101)." in said.line("handshake")
    assert "The node accepts one that was minted with auth.secret" in said.line("token")
    assert f"{node.name} welcomes after " in said.line("round trip") and "ping to pong takes " in said.line("round trip")
    assert "A quiet connection lives for 1 s and longer; the node's heartbeat is 25 s." in said.line("idle")
    assert "The first bytes come after " in said.line("sse") and ", and later ones as well." in said.line("sse")
    assert "and a second one waits for 1 s and longer." in said.line("poll")
    assert said.text.endswith("\nAll is well.\n"), said.text


def test_json_for_programs(node, doctor):
    said = doctor(node.public(), "--json")
    assert said["healthy"] is True
    (part,) = said["parts"]
    assert part["part"] == "public" and part["place"] == node.public()
    questions = [finding["question"] for finding in part["findings"]]
    assert questions == ["address", "node", "clock", "handshake", "token", "round trip", "sse", "poll"]
    assert {finding["verdict"] for finding in part["findings"]} == {"good"}
    broken = doctor(f"http://127.0.0.1:{free_port()}/realtime", "--json")
    assert broken["healthy"] is False and broken["parts"][0]["findings"][0]["verdict"] == "bad"


def test_a_heartbeat_passes_in_time(site, doctor):
    quick = site.node(heartbeat__seconds=3, auth__audience="carillon")
    said = doctor(quick.public(), idle=7)
    assert "A quiet connection lives for 7 s and longer; " in said.line("idle") and " passed." in said.line("idle")


def test_a_heartbeat_passes_in_an_sse_stream(site, doctor):
    quick = site.node(auth__mode="none", auth__secret=None, heartbeat__seconds=1)
    nobody = {"auth__mode": None, "auth__secret": None, "auth__audience": None}
    said = doctor(quick.public(), idle=1, **nobody)
    assert "The first bytes come after " in said.line("sse") and ", and later ones as well." in said.line("sse")


def test_nginx_without_the_upgrade_lines(node, doctor, tmp_path, keep):
    proxy = keep(nginx(tmp_path, node.port))
    said = doctor(proxy.url)
    assert said.code == 1 and said.bad() == ["handshake"], said.text
    line = said.line("handshake")
    assert "The handshake reaches the node without its Upgrade (426): nginx/" in line
    assert "dropped it; there arrived connection: close, sec-websocket-key: (present), " in line and "no upgrade" in line
    assert "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection" in line
    # What does not need a WebSocket goes on, and the token was asked about all the same.
    assert "The first bytes come after " in said.line("sse") and "The node accepts it: carillon-doctor for another " in said.line("token")


def test_the_hop_at_fault_is_named_by_comparison(node, doctor, tmp_path, keep):
    proxy = keep(nginx(tmp_path, node.port))
    said = doctor(proxy.url, "--direct", f"http://127.0.0.1:{node.port}")
    assert said.code == 1
    line = said.line("handshake")
    assert f"The node itself ({node.public()}) does this right: the fault is with nginx/" in line
    said = doctor(proxy.url, "--direct", f"http://127.0.0.1:{node.port}", "--origin", "https://elsewhere.example")
    assert "does the same: look there first" not in said.line("handshake").split("node itself")[0]
    assert "The node does not accept pages of https://elsewhere.example" in said.text


def test_nginx_with_a_short_read_timeout(node, doctor, tmp_path, keep):
    proxy = keep(nginx(tmp_path, node.port, UPGRADE, "proxy_read_timeout 5s;"))
    said = doctor(proxy.url, idle=10)
    assert said.code == 1 and "idle" in said.bad(), said.text
    line = said.line("idle")
    assert "A quiet connection is cut after 5." in line and "s by nginx/" in line
    assert "the node's heartbeat comes only after 25 s." in line
    assert "raise proxy_read_timeout and proxy_send_timeout to 60s or more. Or set heartbeat.seconds below 5." in line
    assert "A poll that waits is cut after 5." in said.line("poll")


def test_haproxy_with_a_short_tunnel_timeout(node, doctor, tmp_path, keep):
    proxy = keep(haproxy(tmp_path, node.port, "3s"))
    said = doctor(proxy.url, idle=6)
    assert said.code == 1 and said.bad() == ["idle"], said.text
    line = said.line("idle")
    assert "A quiet connection is cut after 3." in line
    assert "Raise the idle timeout of what stands between to 60 s or more: HAProxy: timeout tunnel" in line


@pytest.mark.parametrize("fault", ["buffering", "compressing"])
def test_nginx_that_buffers_sse(node, doctor, tmp_path, keep, fault):
    # nginx holds back what it gets over HTTP/1.0, its default towards nodes; chunks of HTTP/1.1 only where it compresses.
    lines = {"buffering": [IGNORANT], "compressing": [UPGRADE, IGNORANT, COMPRESSING]}[fault]
    said = doctor(keep(nginx(tmp_path, node.port, *lines)).url)
    assert said.code == 1 and "sse" in said.bad(), said.text
    assert said.bad() == ["sse"] or fault == "buffering", said.text
    line = said.line("sse")
    assert "The SSE stream is held back: no" in line and "within 4 s, though the node sends something; nginx/" in line
    assert "proxy_buffering off; proxy_http_version 1.1; take X-Accel-Buffering out of proxy_ignore_headers" in line


def test_nginx_that_compresses_sse_without_harm(node, doctor, tmp_path, keep):
    said = doctor(keep(nginx(tmp_path, node.port, UPGRADE, COMPRESSING)).url, idle=1)
    assert said.code == 0 and ", and later ones as well." in said.line("sse"), said.text


def test_a_wrong_origin(node, doctor):
    said = doctor(node.public(), "--origin", "https://cms.example.com")
    assert said.code == 1 and "handshake" in said.bad(), said.text
    line = said.line("handshake")
    assert "The node does not accept pages of https://cms.example.com (403): it sees itself as " in line
    assert "http.allowed_origins has no entries." in line
    assert 'Add "https://cms.example.com" to http.allowed_origins of the nodes' in line


def test_a_proxy_that_changes_the_host(node, doctor, tmp_path, keep):
    proxy = keep(nginx(tmp_path, node.port, UPGRADE, "proxy_set_header Host nodes;"))
    line = doctor(proxy.url).line("handshake")
    assert 'it sees itself as "nodes"' in line and "proxy_set_header Host $http_host" in line


def test_websockets_that_are_switched_off(site, doctor):
    node = site.node(websocket__enabled=False, auth__audience="carillon")
    said = doctor(node.public())
    assert said.code == 1 and said.bad() == ["handshake"], said.text
    assert "The site has switched WebSockets off (404, websocket.enabled = false)." in said.line("handshake")
    assert "Set websocket.enabled = true" in said.line("handshake")


def test_a_closed_port(doctor):
    port = free_port()
    said = doctor(f"http://127.0.0.1:{port}/realtime")
    assert said.code == 1 and said.bad() == ["address"], said.text
    assert f"Nothing listens there: 127.0.0.1:{port} refuses connections." in said.line("address")
    assert "Start the node (http.listen) or the proxy in front of it on this port" in said.line("address")


def test_a_name_that_nobody_has(doctor):
    said = doctor("http://nobody.invalid/realtime")
    assert said.code == 1 and "nobody.invalid" in said.line("address") and "DNS" in said.line("address")


def test_tls_with_an_unknown_authority(node, doctor, tmp_path, keep):
    authority, cert, key = certificate(tmp_path / "tls")
    tls = f"ssl; ssl_certificate {cert}; ssl_certificate_key {key}"
    proxy = keep(nginx(tmp_path / "nginx", node.port, UPGRADE, listen=tls))
    url = proxy.url.replace("http:", "https:")
    said = doctor(url)
    assert said.code == 1 and said.bad() == ["certificate"], said.text
    line = said.line("certificate")
    assert "The certificate of 127.0.0.1 is signed by an authority that this machine does not know." in line
    assert "fullchain.pem" in line
    said = doctor(url, "--ca", authority)
    assert said.code == 0 and "The certificate of 127.0.0.1 is good" in said.line("certificate"), said.text
    # The two ways of mixing up http and https.
    assert "If the port expects TLS, write https:// here" in doctor(proxy.url).line("node")
    assert "answers, but not in TLS." in doctor(node.public().replace("http:", "https:")).line("certificate")


def test_a_site_that_answers_200(doctor, keep):
    said = doctor(keep(web_page()).url)
    assert said.code == 1
    assert "/realtime/config is answered with 200, and not by a node." in said.line("node")
    line = said.line("handshake")
    assert "The answer is 200 with a web page instead of 101: the path /realtime does not lead to a node." in line


def test_a_proxy_that_reaches_no_node(doctor, tmp_path, keep):
    said = doctor(keep(nginx(tmp_path, free_port(), UPGRADE)).url)
    assert said.code == 1
    line = said.line("handshake")
    assert "gets no answer from a node (502)." in line and "carillon health --ready" in line


def test_a_handshake_that_is_never_answered(doctor, keep):
    said = doctor(keep(keeps_handshakes()).url)
    assert said.code == 1
    assert "There is no answer to the handshake within 8 s." in said.line("handshake")


def test_another_base_path(node, doctor):
    said = doctor(f"http://127.0.0.1:{node.port}/live")
    assert "The node has nothing at /live (404)." in said.line("handshake")
    assert 'Set http.base_path = "/live"' in said.line("handshake")


def test_clocks_that_disagree(node, tmp_path):
    env = environment({"auth.mode": "none"}) | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    command = ["faketime", "-f", "-120s", PROGRAM, "doctor", node.public(), "--idle", "0"]
    out = subprocess.run(command, env=env, capture_output=True, timeout=60).stdout.decode()
    clock = next(line for line in out.splitlines() if " clock " in line)
    assert clock.startswith("✗") and "s ahead of this machine's." in clock, out
    assert "Synchronise the clocks of nodes, CMS and this machine (NTP)" in out
