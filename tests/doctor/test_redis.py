"""What can be wrong with Redis; each test asserts the sentence that is printed."""

from setups import old_redis
from kit.stage import free_port


def test_a_redis_that_is_well(site, node, doctor):
    said = doctor(node.public(), "--redis", site.redis.url)
    assert said.code == 0 and said.bad() == [], said.text
    assert f"Connected to {site.redis.url}." in said.line("connection")
    assert "Redis 7." in said.line("server")
    assert "Loaded, with the settings of this configuration." in said.line("library")
    assert "maxmemory-policy noeviction, maxmemory 0." in said.line("memory")
    assert "Logs survive a restart of Redis." in said.line("persistence")
    assert "Published and received back in " in said.text


def test_a_url_without_a_user_says_nothing_of_the_nodes_own(site, node, doctor, tmp_path):
    """The user `default` may everything, and the node's user perhaps not: nothing is well by that alone."""
    said = doctor(node.public(), "--redis", site.redis.url)
    assert "! user" in said.text and "redis://USER:PASSWORD@HOST:PORT" in said.line("user")
    url = site.redis.url.replace("redis://", "redis://default:any@")
    assert "! user" not in doctor(node.public(), "--redis", url).text
    file = tmp_path / "carillon.toml"
    file.write_text("")
    assert "! user" not in doctor(node.public(), "--redis", site.redis.url, "--config", str(file)).text


def test_a_wrong_password(node, doctor, new_redis):
    redis = new_redis("--requirepass", "right")
    said = doctor(node.public(), "--redis", f"redis://:incorrect@127.0.0.1:{redis.port}")
    assert said.code == 1 and said.bad() == ["connection"], said.text
    line = said.line("connection")
    assert f"Redis at redis://127.0.0.1:{redis.port} does not accept the user name or password." in line
    assert "Correct redis.username and redis.password." in line
    assert "incorrect" not in said.text
    said = doctor(node.public(), "--redis", redis.url)
    assert f"Redis at {redis.url} wants a password." in said.line("connection")


def test_nobody_there(node, doctor):
    url = f"redis://127.0.0.1:{free_port()}"
    line = doctor(node.public(), "--redis", url).line("connection")
    assert f"Redis at {url} cannot be reached" in line and "Check redis.url and the network." in line


def test_version_6(node, doctor, keep):
    server = keep(old_redis("6.2.14"))
    said = doctor(node.public(), "--redis", f"redis://127.0.0.1:{server.port}")
    assert said.code == 1 and said.bad() == ["server"], said.text
    line = said.line("server")
    assert f"Redis at redis://127.0.0.1:{server.port} is version 6.2.14." in line
    assert "Carillon needs Redis 7.0 or later, or Valkey, for its functions." in line


def test_no_function_and_no_right_to_load_it(node, doctor, new_redis):
    redis = new_redis()
    with redis.client() as client:
        client.execute_command("ACL", "SETUSER", "cms", "on", ">secret", "~*", "&*", "+@all", "-function|load")
    said = doctor(node.public(), "--redis", f"redis://cms:secret@127.0.0.1:{redis.port}")
    assert said.code == 1 and said.bad() == ["library"], said.text
    line = said.line("library")
    assert "Not loaded, and this user has no right to load it." in line
    assert "ACL SETUSER <user> +function|load" in line and "carillon redis-function --config FILE | redis-cli -x FUNCTION LOAD" in line


def test_no_function_yet(node, doctor, new_redis):
    redis = new_redis()
    said = doctor(node.public(), "--redis", redis.url)
    assert said.code == 0, said.text
    assert "! library" in said.text and "The first node loads it when it starts." in said.line("library")
    with redis.client() as client:
        assert client.execute_command("FUNCTION", "LIST") == [], "the doctor has loaded something"


def test_a_library_with_other_settings(site, node, doctor):
    said = doctor(node.public(), "--redis", site.redis.url, log__length=7)
    line = said.line("library")
    assert said.code == 1 and 'has other settings than this node: log.length is "1000" there and "7" here.' in line
    assert "Give all nodes the same settings" in line


def test_missing_rights(site, node, doctor):
    with site.redis.client() as client:
        client.execute_command("ACL", "SETUSER", "mute", "on", ">secret", "~*", "&*", "+@all", "-fcall")
    url = f"redis://mute:secret@127.0.0.1:{site.redis.port}"
    line = doctor(node.public(), "--redis", url).line("library")
    assert "refuses this node a right that it needs" in line and "ACL SETUSER <user> +fcall" in line


def test_settings_that_weaken_the_promise(node, doctor, new_redis):
    redis = new_redis(
        "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--client-output-buffer-limit", "pubsub 1mb 1mb 10"
    )
    said = doctor(node.public(), "--redis", redis.url)
    assert said.code == 0, said.text
    assert "maxmemory-policy is allkeys-lru: Redis may throw away logs" in said.line("memory")
    assert "Set noeviction." in said.line("memory")
    assert "client-output-buffer-limit pubsub is 1048576 bytes: a burst cuts off nodes." in said.line("output buffer")
    assert "neither RDB nor AOF" in said.line("persistence").replace("Neither", "neither")
