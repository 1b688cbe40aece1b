"""What can be wrong with Redis; each test asserts the sentence that is printed."""

from setups import old_redis
from stage import free_port


def test_a_redis_that_is_well(site, node, doctor):
    said = doctor(node.public(), "--redis", site.redis.url)
    assert said.code == 0 and said.bad() == [], said.text
    assert f"{site.redis.url} answers and lets us in." in said.line("redis")
    assert "It is version " in said.line("version")
    assert "The function library is loaded, with these settings." in said.line("function")
    assert "A published event comes back after " in said.line("publish")
    assert "Redis throws nothing away (maxmemory-policy noeviction)." in said.line("eviction")
    assert "Redis writes what it accepts to disk (appendonly yes)." in said.line("persistence")
    # The one event went where nobody listens.
    assert len(site.log("notifications:carillon-doctor")) == 1


def test_a_wrong_password(node, doctor, new_redis):
    redis = new_redis("--requirepass", "right")
    said = doctor(node.public(), "--redis", f"redis://:incorrect@127.0.0.1:{redis.port}")
    assert said.code == 1 and said.bad() == ["redis"], said.text
    line = said.line("redis")
    assert f"Redis at redis://127.0.0.1:{redis.port} does not accept the user name or password." in line
    assert "Correct redis.username and redis.password." in line
    assert "incorrect" not in said.text
    said = doctor(node.public(), "--redis", redis.url)
    assert f"Redis at {redis.url} wants a password." in said.line("redis")


def test_nobody_there(node, doctor):
    url = f"redis://127.0.0.1:{free_port()}"
    line = doctor(node.public(), "--redis", url).line("redis")
    assert f"Redis at {url} cannot be reached" in line and "correct redis.url" in line


def test_version_6(node, doctor, keep):
    server = keep(old_redis("6.2.14"))
    said = doctor(node.public(), "--redis", f"redis://127.0.0.1:{server.port}")
    assert said.code == 1 and said.bad() == ["version"], said.text
    line = said.line("version")
    assert f"Redis at redis://127.0.0.1:{server.port} is version 6.2.14, and Carillon needs 7.0 or later" in line
    assert "Upgrade it to Redis 7 or Valkey" in line


def test_no_function_and_no_right_to_load_it(node, doctor, new_redis):
    redis = new_redis()
    with redis.client() as client:
        client.execute_command("ACL", "SETUSER", "cms", "on", ">secret", "~*", "&*", "+@all", "-function|load")
    said = doctor(node.public(), "--redis", f"redis://cms:secret@127.0.0.1:{redis.port}")
    assert said.code == 1 and said.bad() == ["function"], said.text
    line = said.line("function")
    assert "The function library is not loaded, and this user has no right to load it." in line
    assert "ACL SETUSER <user> +function|load" in line and "carillon redis-function | redis-cli -x FUNCTION LOAD" in line


def test_no_function_yet(node, doctor, new_redis):
    redis = new_redis()
    said = doctor(node.public(), "--redis", redis.url)
    assert said.code == 0, said.text
    assert "The function library is not loaded; this user may load it" in said.line("function")
    with redis.client() as client:
        assert client.execute_command("FUNCTION", "LIST") == [], "the doctor has loaded something"


def test_a_library_with_other_settings(site, node, doctor):
    said = doctor(node.public(), "--redis", site.redis.url, log__length=7)
    line = said.line("function")
    assert said.code == 1 and 'has other settings than this node: log.length is "1000" there and "7" here.' in line
    assert "Give all nodes the same settings" in line


def test_missing_rights(site, node, doctor):
    with site.redis.client() as client:
        client.execute_command("ACL", "SETUSER", "blind", "on", ">secret", "~*", "resetchannels", "+@all")
        client.execute_command("ACL", "SETUSER", "mute", "on", ">secret", "~*", "&*", "+@all", "-fcall")
    url = f"127.0.0.1:{site.redis.port}"
    line = doctor(node.public(), "--redis", f"redis://mute:secret@{url}").line("function")
    assert "refuses this node a right that it needs" in line and "ACL SETUSER <user> +fcall" in line
    line = doctor(node.public(), "--redis", f"redis://blind:secret@{url}").line("publish")
    assert "refuses this node a right that it needs" in line and "carillon redis-function --acl" in line


def test_settings_that_weaken_the_promise(node, doctor, new_redis):
    redis = new_redis(
        "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--client-output-buffer-limit", "pubsub 1mb 1mb 10"
    )
    said = doctor(node.public(), "--redis", redis.url)
    assert said.code == 1 and said.bad() == ["eviction"], said.text
    assert "maxmemory-policy is allkeys-lru: when memory is short Redis throws logs away" in said.line("eviction")
    assert "Redis cuts a node off that is 1024 KiB behind" in said.line("subscribers")
    assert "appendonly is no: a Redis that restarts forgets all logs" in said.line("persistence")
