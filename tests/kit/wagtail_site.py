"""A Wagtail site as a newcomer makes it: a fresh project, the settings of the README, two instances on one database, nginx.

It knows the two packages by their wheels and their README only. tests/wagtail drives it with browsers, tests/day with
fifty editors.
"""

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import redis as redis_client

from kit.postgres import Postgres
from kit.stage import ROOT, Node, Process, Redis, free_port, http, wait_for

SITE = ROOT / "tests/.tools/wagtail/site/bin"
"""The virtual environment that has the wheels."""
README = ROOT / "integrations/wagtail/README.md"
SECRET = "a-shared-secret-of-the-wagtail-tests-0123456789"
NODE_TOKEN = "node-token-of-the-wagtail-tests-0123456789"
PASSWORD = "a password of an editor"
REDIS_ADDRESS, NODE_ADDRESS = "redis://redis:6379", "http://carillon:9090"

# What a site of one's own has anyway: a database for two instances, and how it is served.
DATABASE = """
DATABASES = {{"default": {{
    "ENGINE": "django.db.backends.postgresql", "NAME": "site", "USER": "site", "HOST": "127.0.0.1", "PORT": "{postgres}", "CONN_MAX_AGE": 60,
}}}}
"""
SETTINGS = """
DEBUG = False
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
SECRET_KEY = "the secret key of the wagtail tests"
ALLOWED_HOSTS = ["*"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGGING = {"version": 1, "disable_existing_loggers": False, "handlers": {"console": {"class": "logging.StreamHandler"}}, "root": {"handlers": ["console"], "level": "INFO"}}
"""
MODELS = '''from django.db import models

from wagtail.admin.panels import FieldPanel
from wagtail.models import Page


class HomePage(Page):
    body = models.TextField(blank=True)
    content_panels = Page.content_panels + [FieldPanel("body")]
'''

USERS = """import uuid

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models


class People(BaseUserManager):
    def create_superuser(self, email, password, **more):
        user = self.model(email=email, is_superuser=True, **more)
        user.set_password(password)
        user.save()
        return user


class User(AbstractBaseUser, PermissionsMixin):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True)
    first_name = models.CharField(max_length=50)
    is_active = models.BooleanField(default=True)
    USERNAME_FIELD = "email"
    objects = People()

    def get_full_name(self):
        return self.first_name
"""


def block(readme, language, contains):
    """The block of code in a README that contains a text."""
    found = [text for text in re.findall(rf"^```{language}\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL) if contains in text]
    assert len(found) == 1, f"{len(found)} blocks of {language} with {contains!r}"
    return found[0]


class Instance:
    """One gunicorn with the project; it reaches Redis by a port of its own, which can be cut."""

    def __init__(self, site, name):
        self.site, self.name, self.port = site, name, free_port()
        self.gate = Gate(site, f"{name}-redis", site.redis.port)
        self.process = None
        self.start()

    def start(self):
        settings = {"CARILLON_SECRET": SECRET, "CARILLON_NODE_TOKEN": NODE_TOKEN, "REDIS_PORT": str(self.gate.port), **self.site.environment}
        command = [
            SITE / "gunicorn", "mysite.wsgi:application", "--chdir", self.site.project, "--bind", f"127.0.0.1:{self.port}",
            "--workers", str(self.site.workers), "--threads", "8", "--access-logfile", "-",
            "--access-logformat", f"{self.name} %(m)s %(U)s %(s)s %(M)s",
        ]
        self.process = Process([str(word) for word in command], self.site.place / f"{self.name}.log", settings)

    def ready(self):
        def answers():
            assert self.process.running, f"{self.name} ended: {self.process.output()[-2000:]}"
            try:
                return http("GET", f"http://127.0.0.1:{self.port}/admin/login/")[0] == 200
            except OSError:
                return False

        wait_for(f"{self.name} answers", answers, 60)
        return self

    def kill(self):
        # The master and its workers.
        children = subprocess.run(["pgrep", "-P", str(self.process.popen.pid)], capture_output=True, text=True).stdout.split()
        self.process.kill()
        for child in children:
            subprocess.run(["kill", "-KILL", child], check=False, stderr=subprocess.DEVNULL)

    def requests(self):
        """What was asked of it: `(method, path, status, milliseconds)`."""
        lines = [line.split() for line in self.process.output().splitlines() if line.startswith(f"{self.name} ")]
        return [(words[1], words[2], int(words[3]), int(words[4])) for words in lines]


class Gate:
    """A way to a port that can be cut off: nginx' stream module is not everywhere, socat is not either, so a few lines of Python."""

    def __init__(self, site, name, port):
        self.site, self.name, self.target, self.port = site, name, port, free_port()
        self.process = None
        self.open()

    def open(self):
        self.process = Process(
            ["python3", str(Path(__file__).with_name("gate.py")), str(self.port), str(self.target)], self.site.place / f"{self.name}.log"
        )

    def cut(self):
        """What is sent gets no answer any more, as behind a firewall that drops."""
        self.process.popen.send_signal(12)  # SIGUSR2

    def mend(self):
        self.process.popen.send_signal(10)  # SIGUSR1

    def stop(self):
        self.process.kill()


class WagtailSite:
    """Redis, nodes, PostgreSQL, a project, two instances of it, and nginx before all of them."""

    def __init__(self, place, nodes=2, workers=1, settings="", environment=None, sqlite=False, static_elsewhere=False, policy="", own_users=False):
        """`sqlite`: the database of a new project instead of PostgreSQL, with the line that the README has for it.

        `static_elsewhere`: static files come from an origin of their own. `policy`: the source of a middleware `Policy`, in which
        `{static}` is that origin. `own_users`: a user model of the site's own, with UUIDs as keys and e-mail addresses as names.
        """
        self.place = Path(place)
        self.place.mkdir(parents=True, exist_ok=True)
        self.workers, self.sqlite, self.nodes, self.instances, self.started = workers, sqlite, [], [], []
        self.environment = {"PATH": "/usr/bin:/bin", **(environment or {})}
        self.static_port = free_port() if static_elsewhere else None
        self.policy, self.own_users = policy, own_users
        try:
            self._start(nodes, settings)
        except BaseException:
            self.close()
            raise

    def _start(self, nodes, settings):
        self.redis = self._keep(Redis(self.place / "redis"))
        for number in range(nodes):
            self.nodes.append(self._keep(Node(self.place / f"node-{number + 1}", f"node-{number + 1}", self.node_settings())))
        self.postgres = None if self.sqlite else self._keep(Postgres())
        self.project = self.place / "project"
        self._make_project(settings)
        for node in self.nodes:
            node.ready()
        for number in (1, 2):
            self.instances.append(Instance(self, f"cms-{number}"))
            self._keep(self.instances[-1].gate)
        for instance in self.instances:
            instance.ready()
        self.port = free_port()
        self._write_nginx()
        self.nginx = self._keep(Process(["nginx", "-c", str(self.place / "nginx.conf"), "-p", str(self.place)], self.place / "nginx.log"))
        self.nginx.stop = lambda: self.nginx.kill()
        wait_for("nginx answers", lambda: self._answers("/admin/login/"), 20)

    def node_settings(self):
        """The settings that the README has for nodes."""
        text = block(README.read_text(), "toml", "[areas]")
        areas = re.search(r'names = "([^"]+)"\nprivate = "([^"]+)"', text)
        assert areas, "the README says which areas the nodes need"
        return {
            "redis.url": self.redis.url, "auth.secret": SECRET, "internal.publish_token": NODE_TOKEN,
            "areas.names": areas[1], "areas.private": areas[2],
        }

    def _make_project(self, settings):
        self.place.joinpath("project").mkdir()
        self.command("wagtail", "start", "mysite", str(self.project), program=SITE / "wagtail")
        readme = README.read_text()
        lines = block(readme, "python", "INSTALLED_APPS").replace(f'"{REDIS_ADDRESS}"', 'f"redis://127.0.0.1:{os.environ[\'REDIS_PORT\']}"')
        lines = lines.replace(NODE_ADDRESS, f"http://127.0.0.1:{self.nodes[0].internal_port}")
        if self.static_port:
            settings += f"\nSTATIC_URL = '{self.static_url}'\n"
        if self.policy:
            origin = self.static_url.removesuffix("/static/")
            (self.project / "mysite/policy.py").write_text(self.policy.replace("{static}", origin))
            settings += "\nMIDDLEWARE = ['mysite.policy.Policy', *MIDDLEWARE]\n"
        apps = ["home"]
        if self.own_users:
            apps = ["people", "home"]
            (self.project / "people").mkdir()
            (self.project / "people/__init__.py").touch()
            (self.project / "people/models.py").write_text(USERS)
            settings += "\nINSTALLED_APPS.insert(0, 'people')\nAUTH_USER_MODEL = 'people.User'\n"
        with (self.project / "mysite/settings/base.py").open("a") as file:
            database = block(readme, "python", "transaction_mode") if self.sqlite else DATABASE.format(postgres=self.postgres.port)
            file.write("\n" + lines + database + SETTINGS + settings)
        dev = self.project / "mysite/settings/dev.py"
        dev.write_text("from .base import *\n")
        (self.project / "home/models.py").write_text(MODELS)
        # Static files by Django itself: no CDN here.
        urls = self.project / "mysite/urls.py"
        urls.write_text(urls.read_text().replace("urlpatterns = urlpatterns + [", (
            "from django.contrib.staticfiles.views import serve\nfrom django.urls import re_path\n"
            'urlpatterns = urlpatterns + [\n    re_path(r"^static/(?P<path>.*)$", serve, {"insecure": True}),'
        )))
        self.manage("makemigrations", *apps)
        self.manage("migrate")
        self.manage("check")

    def manage(self, *arguments, stdin=None):
        """`manage.py`, and what it printed."""
        return self.command("manage.py", *arguments, program=SITE / "python", first=[str(self.project / "manage.py")], stdin=stdin)

    def command(self, name, *arguments, program, first=(), stdin=None):
        environment = {"CARILLON_SECRET": SECRET, "CARILLON_NODE_TOKEN": NODE_TOKEN, "REDIS_PORT": str(self.redis.port), **self.environment}
        done = subprocess.run(
            [str(program), *first, *arguments], cwd=self.project, env=environment, input=stdin, text=True, capture_output=True, timeout=1800
        )
        assert done.returncode == 0, f"{name} {' '.join(arguments)} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def python(self, code):
        """Runs code with the project's models, and reads what it prints last as JSON."""
        printed = self.manage("shell", "-v", "0", stdin=None, *("-c", code))
        return json.loads(printed.strip().splitlines()[-1]) if printed.strip() else None

    def login(self, name):
        """What somebody types as their name when they sign in."""
        return f"{name}@example.com" if self.own_users else name

    def people(self, *names, pages=0):
        """Administrators with these names, and a section with pages; the ids of the section and its pages."""
        return self.python(f"""
import json
from django.contrib.auth import get_user_model
from wagtail.models import Page
from home.models import HomePage
for name in {list(names)!r}:
    named = {{}} if {self.own_users} else {{"username": name}}
    get_user_model().objects.create_superuser(email=name + "@example.com", password={PASSWORD!r}, first_name=name.capitalize(), **named)
home = Page.objects.filter(depth=2).first()
section = home.add_child(instance=HomePage(title="Section", slug="section"))
section.save_revision().publish()
pages = []
for number in range({pages}):
    page = section.add_child(instance=HomePage(title=f"Page {{number + 1}}", slug=f"page-{{number + 1}}", body="First words."))
    page.save_revision().publish()
    pages.append(page.pk)
print(json.dumps({{"home": home.pk, "section": section.pk, "pages": pages}}))
""")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def static_url(self):
        return f"http://127.0.0.1:{self.static_port or self.port}/static/"

    def client(self):
        return redis_client.Redis(port=self.redis.port, decode_responses=True, socket_timeout=10)

    def requests(self):
        """What all instances were asked."""
        return [request for instance in self.instances for request in instance.requests()]

    def _answers(self, path):
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _write_nginx(self):
        nodes = " ".join(f"server 127.0.0.1:{node.port};" for node in self.nodes)
        instances = " ".join(f"server 127.0.0.1:{instance.port} max_fails=1 fail_timeout=2s;" for instance in self.instances)
        # The module while it is being worked on: the nodes carry the one that they were built with.
        module = os.environ.get("REALTIME_JS", "")
        own = f"location ~ ^/realtime/realtime.*js$ {{ default_type text/javascript; alias {module}; }}" if module else ""
        # As a CDN does: files only, for pages of every origin.
        elsewhere = f"""server {{ listen 127.0.0.1:{self.static_port};
        location /static/ {{ proxy_pass http://instances; proxy_set_header Host $http_host; add_header Access-Control-Allow-Origin *; }} }}""" if self.static_port else ""
        logs = "".join(f"{kind}_temp_path {self.place}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.place / "nginx.conf").write_text(f"""daemon off; worker_processes 1; user root; pid {self.place}/nginx.pid; error_log {self.place}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; {logs}
    map $http_upgrade $upgrade {{ default upgrade; '' ''; }}
    upstream nodes {{ {nodes} }}
    upstream instances {{ {instances} }}
    {elsewhere}
    server {{
        listen 127.0.0.1:{self.port}; proxy_http_version 1.1; client_max_body_size 20m;
        proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto http;
        {own}
        location /realtime {{ proxy_pass http://nodes; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade; proxy_buffering off; proxy_read_timeout 120s; proxy_next_upstream error timeout http_503; }}
        location / {{ proxy_pass http://instances; proxy_next_upstream error timeout; proxy_connect_timeout 2s; }}
    }}
}}
""")

    def _keep(self, thing):
        self.started.append(thing)
        return thing

    def close(self):
        for instance in self.instances:
            instance.kill()
        for thing in reversed(self.started):
            thing.stop()
        shutil.rmtree(self.place / "project", ignore_errors=True)
