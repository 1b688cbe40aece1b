"""The app of the demo."""

from django.apps import AppConfig


class NewsroomConfig(AppConfig):
    """Pages of a newsroom."""

    name = "newsroom"
    default_auto_field = "django.db.models.BigAutoField"
