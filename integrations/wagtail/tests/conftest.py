"""A small site: a section with two pages in it, and editors with different rights."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from carillon_notify.django.models import NodeOrder, OutboxRow
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from wagtail.models import GroupPagePermission, Page

from .home.models import ArticlePage

Event = tuple[tuple[str, ...], dict[str, Any]]


class Site:
    """root > home > (news > (first, second), blog)"""

    def __init__(self) -> None:
        self.root = Page.objects.get(depth=1)
        self.home = self.root.get_children().first()
        self.news = self.add(self.home, "news")
        self.blog = self.add(self.home, "blog")
        self.first = self.add(self.news, "first")
        self.second = self.add(self.news, "second")

    def add(self, parent: Page, slug: str) -> ArticlePage:
        page: ArticlePage = parent.add_child(instance=ArticlePage(title=f"Secret title of {slug}", slug=slug, body="secret body"))
        page.save_revision().publish()
        return page

    def key(self, *pages: Page) -> str:
        return "/".join(str(page.pk) for page in pages)


@pytest.fixture
def site(db: None) -> Site:
    found = Site()
    OutboxRow.objects.all().delete()
    return found


@pytest.fixture
def told() -> Callable[[], list[Event]]:
    """What was told since the last call: topics and events."""

    def take() -> list[Event]:
        rows = list(OutboxRow.objects.order_by("id"))
        OutboxRow.objects.all().delete()
        return [(tuple(topics), event) for row in rows for topics, event in json.loads(row.entries)]

    return take


@pytest.fixture
def orders() -> Callable[[], list[tuple[str, Any]]]:
    """The orders to the nodes since the last call."""

    def take() -> list[tuple[str, Any]]:
        found = [(order.path, json.loads(order.body)) for order in NodeOrder.objects.order_by("id")]
        NodeOrder.objects.all().delete()
        return found

    return take


@pytest.fixture
def admin(db: None) -> Any:
    return get_user_model().objects.create_superuser("Boss", "boss@example.com", "secret")


@pytest.fixture
def editor_of(db: None) -> Callable[..., Any]:
    """An editor who may edit and publish below some pages."""

    def make(name: str, *pages: Page) -> Any:
        group = Group.objects.create(name=f"editors of {name}")
        group.permissions.add(Permission.objects.get(codename="access_admin"))
        for page in pages:
            for action in ("change", "publish"):
                permission = Permission.objects.get(codename=f"{action}_page", content_type__app_label="wagtailcore")
                GroupPagePermission.objects.create(group=group, page=page, permission=permission)
        user = get_user_model().objects.create_user(name, f"{name}@example.com", "secret")
        user.groups.add(group)
        return user

    return make
