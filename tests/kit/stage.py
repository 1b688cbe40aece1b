"""The stage of the acceptance tests: a real redis-server and real `carillon serve` processes on free ports.

Starts and ends only its own processes. Knows the contract's configuration and HTTP routes, nothing of the insides.
"""

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import jwt
import redis

from kit.machine import Process, free_port, http, until, wait_for  # noqa: F401 - tests take them from here

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("CARILLON_BIN") or str(ROOT / "target/debug/carillon")
SECRET = "a-shared-secret-of-the-acceptance-tests-0123456789"
PUBLISH_TOKEN = "publish-token-of-the-acceptance-tests"
# `tests/acceptance/run --secured`: Redis by TLS with client certificates only, its default user off, and node and
# publishers as exactly the users that `carillon redis-function --acl` prints.
SECURED = bool(os.environ.get("CARILLON_TEST_SECURED"))
PASSWORD = "redis-password-of-the-acceptance-tests"
AUTHORISED = {"Authorization": f"Bearer {PUBLISH_TOKEN}"}
TLS_SETTINGS = ("redis.tls_ca", "redis.tls_cert", "redis.tls_key")
AREAS = ["comments", "project-items", "projects", "notifications", "content"]


ISSUED = set()
TOKEN = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}")


def leaks(text, settings=()):
    """Secrets and tokens in a text: those of these settings, those that were issued so far, and whatever looks like one."""
    known = {SECRET, PUBLISH_TOKEN, PASSWORD, *ISSUED}
    for key, value in dict(settings).items():
        if key in ("auth.secret", "auth.previous_secret", "internal.publish_token", "redis.password"):
            known.add(str(value))
        if key.endswith("_file") and key.removesuffix("_file").endswith(("secret", "password", "token")):
            known.add(Path(value).read_text().strip())
    # What stands in the signature alone is enough to be a finding.
    found = {secret for secret in known if secret in text or (secret.count(".") == 2 and len(end := secret.rpartition(".")[2]) > 20 and end in text)}
    return sorted(found | set(TOKEN.findall(text)))


def token(sub, topics=None, publish=None, secret=SECRET, algorithm="HS256", **claims):
    """A signed token as a CMS makes it."""
    body = {"sub": sub, "exp": int(time.time()) + 3600}
    if topics is not None:
        body["topics"] = topics
    if publish is not None:
        body["publish"] = publish
    body.update(claims)
    made = jwt.encode({k: v for k, v in body.items() if v is not None}, secret, algorithm=algorithm)
    ISSUED.add(made)
    return made


def environment(settings):
    """Only what a program needs, and the settings: nothing from the machine leaks in."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "CARILLON_MUTANT") if name in os.environ}
    for key, value in settings.items():
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, (list, tuple)):
            value = ",".join(value)
        kept["CARILLON__" + key.upper().replace(".", "__")] = str(value)
    return kept


class Redis:
    """A redis-server of the test's own, which can be stopped and started again on its port."""

    def __init__(self, place, *options):
        self.place = Path(place)
        self.place.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.port = free_port()
        self.process = None
        # A site that says itself how its Redis is protected is left as it is.
        self.secured = SECURED and "--requirepass" not in options
        self.certificates = certificates(self.place) if self.secured else None
        self.users = [f"stage on >{PASSWORD} ~* &* +@all", "default off resetpass ~* &* +@all"]
        if self.secured:
            self.let_in({})
        self.start()

    def start(self):
        """Starts it and waits until it answers."""
        fixed = ["--bind", "127.0.0.1", "--dir", str(self.place), "--save", ""]
        if self.secured:
            fixed += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "yes", "--tls-replication", "yes"]
            for option, name in (("cert-file", "server.pem"), ("key-file", "server.key"), ("ca-cert-file", "ca.pem")):
                fixed += [f"--tls-{option}", str(self.certificates / name)]
            for user in self.users:
                fixed += ["--user", *user.split()]
        else:
            fixed += ["--port", str(self.port)]
        self.process = Process(["redis-server", *fixed, *self.options], self.place / "redis.log")
        wait_for("redis-server answers", self.answers)

    def let_in(self, settings):
        """Makes the users that such a node and its publishers need, now and after every restart of this Redis."""
        settings = {key: value for key, value in settings.items() if key.startswith(("areas.", "redis.prefix")) and value is not None}
        code, lines, error = carillon("redis-function", "--acl", env=environment(settings))
        assert code == 0, error
        for line in lines.splitlines():
            if line.startswith("ACL SETUSER ") and (user := line.removeprefix("ACL SETUSER ").replace("CHANGE-ME", PASSWORD)) not in self.users:
                self.users.append(user)
                if self.process and self.process.running:
                    with self.client() as client:
                        client.execute_command("ACL", "SETUSER", *user.split())

    def settings(self, prefix):
        """What a node needs in its configuration to reach it."""
        if not self.secured:
            return {"redis.url": self.url}
        place = {f"redis.tls_{key}": self.certificates / name for key, name in (("ca", "ca.pem"), ("cert", "client.pem"), ("key", "client.key"))}
        return {"redis.url": f"rediss://127.0.0.1:{self.port}", "redis.username": f"{prefix}-node", "redis.password": PASSWORD, **place}

    def answers(self):
        assert self.process.running, f"redis-server ended: {self.process.output()[-500:]}"
        try:
            with self.client(socket_timeout=5) as client:
                return client.execute_command("ECHO", "here") == b"here"
        except redis.exceptions.AuthenticationError:
            return True
        except redis.exceptions.RedisError as error:
            return "NOAUTH" in str(error) or "NOPERM" in str(error)

    def stop(self):
        self.process.kill()

    def client(self, user="stage", **options):
        """A client; of the stage itself, which may do everything, or of another user."""
        if self.secured:
            tls = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "client.pem", "ssl_keyfile": "client.key"}
            tls = {option: str(self.certificates / name) for option, name in tls.items()}
            options = {"ssl": True, **tls, "username": user, "password": PASSWORD, **options}
        return redis.Redis(host="127.0.0.1", port=self.port, **options)

    def publisher(self, prefix="carillon"):
        """A client of a publisher."""
        return self.client(f"{prefix}-publisher")

    @property
    def url(self):
        """Where a publisher finds it."""
        login = f"carillon-publisher:{PASSWORD}@" if self.secured else ""
        return f"redis{'s' if self.secured else ''}://{login}127.0.0.1:{self.port}"

    def tls(self, *names):
        """Options, or names of settings, each with its file: authority, certificate, key."""
        files = ("ca.pem", "client.pem", "client.key")
        return {name: str(self.certificates / file) for name, file in zip(names, files)} if self.secured else {}

    def environment(self):
        """What the command line needs besides the URL: it speaks to Redis as a node does."""
        login = {"redis.username": "carillon-node", "redis.password": PASSWORD} if self.secured else {}
        return environment({**login, **self.tls("redis.tls_ca", "redis.tls_cert", "redis.tls_key")})

    def calls(self, *commands):
        """How often these commands ran, by Redis' own statistics; calls from within functions count."""
        with self.client() as client:
            stats = client.info("commandstats")
        return sum(stats.get(f"cmdstat_{command}", {}).get("calls", 0) for command in commands)


class Node:
    """One `carillon serve`."""

    def __init__(self, place, name, settings):
        self.name = name
        self.place = Path(place)
        self.place.mkdir(parents=True, exist_ok=True)
        self.port, self.internal_port = free_port(), free_port()
        self.settings = {
            "node.name": name,
            "http.listen": f"127.0.0.1:{self.port}",
            "internal.listen": f"127.0.0.1:{self.internal_port}",
            "auth.mode": "jwt",
            "auth.secret": SECRET,
            "internal.publish_token": PUBLISH_TOKEN,
            "drain.window_seconds": 1,
            "drain.grace_seconds": 2,
            **settings,
        }
        self.settings = {key: value for key, value in self.settings.items() if value is not None}
        self.process = None
        self.start()

    def start(self):
        self.process = Process([PROGRAM, "serve"], self.place / "node.log", environment(self.settings))

    def ready(self):
        """Waits until it is ready, and returns it."""

        def is_ready():
            assert self.process.running, f"{self.name} ended with {self.process.popen.returncode}:\n{self.output()}"
            return self.readiness()[0] == 200

        try:
            wait_for(f"{self.name} ready", is_ready, 20)
        except AssertionError as error:
            raise AssertionError(f"{error}; /readyz: {self.readiness()}\n{self.output()[-3000:]}") from None
        return self

    def readiness(self):
        """Status and body of /readyz; status 0 while nobody listens."""
        try:
            status, _, body = http("GET", self.internal("/readyz"), seconds=5)
            return status, body.decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError, OSError) as error:
            return 0, str(error)

    def public(self, path=""):
        return f"http://127.0.0.1:{self.port}/realtime{path}"

    def internal(self, path):
        return f"http://127.0.0.1:{self.internal_port}{path}"

    @property
    def websocket(self):
        return f"ws://127.0.0.1:{self.port}/realtime"

    def publish(self, body, query="", headers=None):
        """`POST /publish`: status and JSON. Authorised unless headers are given."""
        headers = {"Content-Type": "application/json", **(AUTHORISED if headers is None else headers)}
        status, _, text = http("POST", self.internal("/publish" + query), body, headers)
        return status, json.loads(text)

    def metric(self, name, **labels):
        """The sum of the samples of this name that have these labels."""
        total, found = 0.0, False
        for line in http("GET", self.internal("/metrics"))[2].decode().splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(f'{k}="{v}"' in head for k, v in labels.items()):
                total, found = total + float(value), True
        return total if found else None

    def output(self):
        return self.process.output()

    def stop(self):
        self.process.kill()


class Site:
    """One Redis and any number of nodes on it; everything ends with the test."""

    def __init__(self, place, redis_options=()):
        self.place = Path(place)
        self.redis = Redis(self.place / "redis", *redis_options)
        self.nodes = []
        self.others = []

    def start(self, **settings):
        """A node, perhaps not ready yet. `redis__url=…` sets `redis.url`; None removes a setting."""
        name = f"node-{len(self.nodes) + 1}"
        settings = {key.replace("__", "."): value for key, value in settings.items()}
        settings = {**self.redis.settings(settings.get("redis.prefix", "carillon")), **settings}
        if not str(settings["redis.url"]).startswith("rediss://"):
            settings = {key: value for key, value in settings.items() if key not in TLS_SETTINGS}
        elif self.redis.secured:
            self.redis.let_in(settings)
        node = Node(self.place / name, name, settings)
        self.nodes.append(node)
        return node

    def node(self, **settings):
        """A node that is ready."""
        return self.start(**settings).ready()

    def three(self, **settings):
        started = [self.start(**settings) for _ in range(3)]
        return [node.ready() for node in started]

    def keep(self, other):
        """Something else that is stopped with the site."""
        self.others.append(other)
        return other

    def record(self, topic, event, prefix="carillon"):
        """Publishes a recorded event and returns its log id."""
        with self.redis.publisher(prefix) as client:
            return client.fcall(f"{prefix}_publish", 1, f"{prefix}:{topic}", text_of(event)).decode()

    def record_all(self, topic, events):
        """Publishes many recorded events in one go."""
        with self.redis.publisher() as client:
            pipe = client.pipeline(transaction=False)
            for event in events:
                pipe.fcall("carillon_publish", 1, f"carillon:{topic}", text_of(event))
            return [reply.decode() for reply in pipe.execute()]

    def live(self, topic, event):
        """Publishes a live event and returns how many nodes Redis gave it to."""
        with self.redis.publisher() as client:
            return client.publish(f"carillon:{topic}", text_of(event))

    def log(self, topic):
        """The log of a topic: `[(id, event), …]`."""
        with self.redis.client() as client:
            # Until its first event, a log is a string that holds its epoch.
            quiet = client.type(f"carillon:{topic}") == b"string"
            entries = [] if quiet else client.xrange(f"carillon:{topic}")
        return [(key.decode(), readable(fields.get(b"event"))) for key, fields in entries]

    def log_epoch(self, topic):
        """The epoch of a topic's log."""
        return self.log(topic)[-1][0].partition("-")[0]

    def close(self):
        for process in [*self.nodes, *self.others, self.redis]:
            process.stop()


def certificates(place):
    """An authority, and a server's and a client's certificate for 127.0.0.1, in a folder."""
    folder = Path(place) / "tls"
    folder.mkdir(exist_ok=True)
    script = """set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test-authority -keyout ca.key \\
            -out ca.pem -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
        printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\\nbasicConstraints=CA:FALSE' > ext
        for name in server client; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.pem
        done"""
    subprocess.run(["sh", "-c", script], cwd=folder, check=True, capture_output=True)
    return folder


def text_of(event):
    """The JSON text of an event; text and bytes pass as they are."""
    return event if isinstance(event, (str, bytes)) else json.dumps(event)


def readable(text):
    """The event of a log's entry; None for what is no JSON (written past the function)."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None


def note(number, kind="comment.created", **more):
    """An event that can be told from others by its number."""
    return {"type": kind, "data": {"n": number}, **more}


def program_path(place):
    """A `PATH` on which the program is called `carillon`, whatever its file is called."""
    link = Path(place) / "bin/carillon"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(Path(PROGRAM).resolve())
    return f"{link.parent}:{os.environ['PATH']}"


def carillon(*arguments, env=None, stdin=None, cwd=None, seconds=30):
    """Runs the program to its end: `(exit code, stdout, stderr)`."""
    done = subprocess.run(
        [PROGRAM, *arguments], env=environment({}) if env is None else env, input=stdin, cwd=cwd, capture_output=True, timeout=seconds
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()
