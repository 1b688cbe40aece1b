"""Pages and a snippet of the test site."""

from django.db import models
from wagtail.admin.panels import FieldPanel
from wagtail.models import Page
from wagtail.snippets.models import register_snippet


class ArticlePage(Page):
    body = models.TextField(blank=True)
    content_panels = [*Page.content_panels, FieldPanel("body")]


@register_snippet
class Author(models.Model):
    name = models.CharField(max_length=50)
