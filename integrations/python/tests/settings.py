"""A small Django project around the outbox. The environment names its database and Redis."""

import json
import os

if "mysql" in os.environ.get("TEST_DATABASE", ""):
    import pymysql  # type: ignore[import-untyped, unused-ignore]

    # It stands in for mysqlclient, which needs a compiler.
    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()

SECRET_KEY = "for tests only"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.urls"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "carillon_notify.django",
    "tests.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "carillon_notify.django.middleware.CarillonMiddleware",
]
DATABASES = {"default": json.loads(os.environ.get("TEST_DATABASE", '{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}'))}
CARILLON = json.loads(os.environ.get("TEST_CARILLON", '{"SECRET": "0123456789abcdef0123456789abcdef"}'))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING = {"version": 1, "handlers": {"console": {"class": "logging.StreamHandler"}}, "loggers": {"carillon": {"handlers": ["console"], "level": "INFO"}}}
