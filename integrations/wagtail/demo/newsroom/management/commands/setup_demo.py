"""Makes the database of the demo, its pages and its editors. Safe to run again: what is there stays.

    manage.py setup_demo                   at each start of docker-compose.yml
    manage.py setup_demo --new-passwords   new passwords for the editors, printed
"""

import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.management import BaseCommand, CommandParser, call_command
from django.db import connection, transaction
from wagtail.models import GroupPagePermission, Page, Site

from newsroom.models import ArticlePage, SectionPage

LOCK = 20_260
"""Of PostgreSQL: one setup at a time."""
SECTIONS = {
    "News": ["The bridge opens in May", "A new roof for the market hall", "Night trains are back", "The library stays open until ten"],
    "Culture": ["Eight bells for the old tower", "A festival of small stages", "What the museum keeps in its cellar"],
    "Sport": ["Rowers wait for the river", "A quiet record in the long jump", "The club that nobody leaves"],
}
EDITORS = {
    "admin": ("Ada", None, "administers the site"),
    "anna": ("Anna", "Editors", "edits everything"),
    "bilal": ("Bilal", "Moderators", "edits, reviews and publishes everything"),
    "chiyo": ("Chiyo", "Sport desk", "edits below Sport, and nothing else"),
}
"""Name: first name, group (none: an administrator), what they may do."""


class Command(BaseCommand):
    """`manage.py setup_demo`."""

    help = "Makes the database of the demo, its pages and its editors, and prints the passwords that it made."

    def add_arguments(self, parser: CommandParser) -> None:
        """One option."""
        parser.add_argument("--new-passwords", action="store_true", help="give the editors new passwords")

    def handle(self, *arguments: Any, new_passwords: bool = False, **options: Any) -> None:
        """Migrates, then makes what is missing."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        call_command("migrate", verbosity=0)
        with transaction.atomic():
            if not SectionPage.objects.exists():
                make_pages()
            made = make_editors(new_passwords)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
        self.say(made)

    def say(self, made: dict[str, str]) -> None:
        """Prints who can sign in."""
        if not made:
            self.stdout.write("The editors are there, with the passwords of the first start. `manage.py setup_demo --new-passwords` makes new ones.")
            return
        self.stdout.write("Sign in at /cms/admin/, in two windows as two editors. These passwords are not printed again:\n")
        for name, password in made.items():
            self.stdout.write(f"    {name:<6} {password}   {EDITORS[name][2]}")


def make_pages() -> None:
    """A front page with sections and articles, in place of Wagtail's welcome page."""
    root = Page.get_first_root_node()
    front = root.add_child(instance=SectionPage(title="Newsroom", slug="newsroom"))
    front.save_revision().publish()
    for name, titles in SECTIONS.items():
        section = front.add_child(instance=SectionPage(title=name, slug=name.lower()))
        section.save_revision().publish()
        for number, title in enumerate(titles, start=1):
            article = section.add_child(instance=ArticlePage(
                title=title, slug=f"{name.lower()}-{number}", summary=f"{title}: what we know so far.", body="<p>First words.</p>",
            ))
            article.save_revision().publish()
    Site.objects.update(root_page=front, site_name="Newsroom")
    Page.objects.filter(depth=2).exclude(pk=front.pk).delete()


def make_editors(new_passwords: bool) -> dict[str, str]:
    """The editors that are missing, or new passwords for all; who got which."""
    desk, _ = Group.objects.get_or_create(name="Sport desk")
    desk.permissions.add(Permission.objects.get(codename="access_admin"))
    sport = Page.objects.get(slug="sport", depth=3)
    for action in ("add_page", "change_page", "publish_page"):
        GroupPagePermission.objects.get_or_create(group=desk, page=sport, permission=Permission.objects.get(codename=action))
    made = {}
    for name, (first_name, group, _) in EDITORS.items():
        user, created = get_user_model().objects.get_or_create(
            username=name, defaults={"first_name": first_name, "email": f"{name}@example.com", "is_superuser": group is None},
        )
        if not (created or new_passwords):
            continue
        made[name] = secrets.token_urlsafe(12)
        user.set_password(made[name])
        user.save()
        if group:
            user.groups.add(Group.objects.get(name=group))
    return made
