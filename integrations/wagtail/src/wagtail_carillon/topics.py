"""Topics of pages: `content:2/5/17` is page 17 below page 5 below page 2.

The key is the chain of ids from below the root down to the page, so that the rights of a subtree are one prefix
(`content:2/5/*`). Ids, not Wagtail's `path`: reordering pages changes the paths of their siblings.
"""

from collections.abc import Iterable

from wagtail.models import Page

CONTENT, COMMENTS, TREE = "content", "comments", "tree"
AREAS = (CONTENT, COMMENTS, TREE)
ROOT = "root"
"""The key of the root page, which has no place in a chain."""


def chain_of(page: Page) -> tuple[int, ...]:
    """The ids of a page's ancestors below the root, then its own. One query.

    `page` may be an instance of before a move: its old place is what it names.
    """
    step = page.steplen
    paths = [page.path[:end] for end in range(2 * step, len(page.path), step)]
    ids = dict(Page.objects.filter(path__in=paths).values_list("path", "pk")) if paths else {}
    ancestors = tuple(ids[path] for path in paths if path in ids)
    return ancestors if page.depth == 1 else (*ancestors, page.pk)


def key_of(chain: Iterable[int]) -> str:
    """The key of a chain: `2/5/17`."""
    return "/".join(map(str, chain))


def topic(area: str, chain: tuple[int, ...]) -> str:
    """The topic of a page in an area."""
    return f"{area}:{key_of(chain) or ROOT}"


def ancestors(chain: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The chains of a page's ancestors, from the root down."""
    return [chain[:end] for end in range(len(chain))]


def followed(chain: tuple[int, ...]) -> dict[str, object]:
    """What an open page follows."""
    return {
        "content": topic(CONTENT, chain),
        "comments": topic(COMMENTS, chain),
        # A move, a new slug or a deletion further up concerns this page as well.
        "tree": [topic(TREE, above) for above in (*ancestors(chain), chain)],
    }


def snippet_topic(model_label: str, pk: object) -> str:
    """The topic of a snippet: `content:s/blog.author/7`."""
    from carillon_notify import topic as encoded

    return encoded(CONTENT, f"s/{model_label.lower()}/{pk}")
