"""Settings of the demo: Wagtail as usual, and at the end the lines that put it on Carillon.

All that differs from one place to another comes from the environment; secrets come from files (`CMS_SECRETS`, a folder).
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRETS = Path(os.environ.get("CMS_SECRETS", "/run/carillon"))


def secret(name: str) -> str:
    """A secret: the content of a file."""
    return (SECRETS / name).read_text().strip()


SECRET_KEY = secret("cms-key")
DEBUG = False
# Reached under these names only: other sites' pages cannot lead a browser here under theirs.
ALLOWED_HOSTS = os.environ.get("CMS_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
# The instance that answers, for who looks from outside which one it was.
INSTANCE = os.environ.get("CMS_NAME", "cms")

INSTALLED_APPS = [
    "newsroom",
    "wagtail.contrib.redirects",
    "wagtail.embeds",
    "wagtail.sites",
    "wagtail.users",
    "wagtail.snippets",
    "wagtail.documents",
    "wagtail.images",
    "wagtail.search",
    "wagtail.admin",
    "wagtail",
    "modelcluster",
    "taggit",
    "django_filters",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "wagtail.contrib.redirects.middleware.RedirectMiddleware",
]
ROOT_URLCONF = "newsroom.urls"
WSGI_APPLICATION = "newsroom.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("DATABASE_HOST", "database"),
        "PORT": os.environ.get("DATABASE_PORT", "5432"),
        "NAME": os.environ.get("DATABASE_NAME", "newsroom"),
        "USER": os.environ.get("DATABASE_USER", "newsroom"),
        "PASSWORD": secret("database"),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"connect_timeout": 3},
    }
}
AUTH_PASSWORD_VALIDATORS = [{"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}}]

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

# Everything of the CMS is below /cms/, so that one address serves it and the nodes (/realtime).
STATIC_URL, MEDIA_URL = "/cms/static/", "/cms/media/"
STATIC_ROOT, MEDIA_ROOT = BASE_DIR / "static", "/media"
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = "/cms/"
WAGTAIL_SITE_NAME = "Carillon's newsroom"
WAGTAILADMIN_BASE_URL = os.environ.get("CMS_URL", "http://localhost:8080")
WAGTAILSEARCH_BACKENDS = {"default": {"BACKEND": "wagtail.search.backends.database"}}
# Nothing leaves the machine.
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
WAGTAIL_ENABLE_UPDATE_CHECK = False
WAGTAIL_ENABLE_WHATS_NEW_BANNER = False
WAGTAIL_GRAVATAR_PROVIDER_URL = None

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "{levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    # Each page that is saved has a dozen lines of these.
    "loggers": {"django_tasks": {"level": "WARNING"}, "wagtail": {"level": "WARNING"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}

# --- Carillon -----------------------------------------------------------------------------------------------------------
INSTALLED_APPS += ["carillon_notify.django", "wagtail_carillon"]
MIDDLEWARE += ["carillon_notify.django.middleware.CarillonMiddleware"]
CARILLON = {
    "ENABLED": os.environ.get("CARILLON_ENABLED", "true") == "true",
    "REDIS": os.environ.get("REDIS_URL", "redis://redis:6379"),
    "REDIS_OPTIONS": {"username": "carillon-publisher", "password": secret("redis-publisher")},
    "SECRET": secret("jwt"),
    "NODES": os.environ.get("CARILLON_NODES", "http://node:9090").split(","),
    "NODE_TOKEN": secret("publish-token"),
}
