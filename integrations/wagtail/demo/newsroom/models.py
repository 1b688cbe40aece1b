"""The pages of a newsroom: sections, and articles in them."""

from django.db import models
from wagtail.admin.panels import FieldPanel
from wagtail.fields import RichTextField
from wagtail.models import Page


class SectionPage(Page):
    """A section. Its page lists what is in it."""

    parent_page_types = ["wagtailcore.Page", "newsroom.SectionPage"]

    class Meta:
        verbose_name = "section"


class ArticlePage(Page):
    """An article."""

    summary = models.TextField(blank=True)
    body = RichTextField(blank=True)

    content_panels = [*Page.content_panels, FieldPanel("summary"), FieldPanel("body")]
    parent_page_types = ["newsroom.SectionPage"]
    subpage_types: list[str] = []

    class Meta:
        verbose_name = "article"
