"""Wagtail's log actions, and what they mean for who looks at a page."""

from .topics import COMMENTS, CONTENT

DELETE = "wagtail.delete"
"""Logged before a page is deleted: for pages, the deletion itself is told."""

# action -> (area, type of the event)
ACTIONS: dict[str, tuple[str, str]] = {
    "wagtail.create": (CONTENT, "content.created"),
    "wagtail.copy": (CONTENT, "content.created"),
    "wagtail.create_alias": (CONTENT, "content.created"),
    "wagtail.copy_for_translation": (CONTENT, "content.created"),
    "wagtail.edit": (CONTENT, "content.saved"),
    "wagtail.revert": (CONTENT, "content.saved"),
    "wagtail.rename": (CONTENT, "content.saved"),
    "wagtail.convert_alias": (CONTENT, "content.saved"),
    "wagtail.publish": (CONTENT, "content.published"),
    "wagtail.publish.scheduled": (CONTENT, "content.published"),
    "wagtail.publish.schedule": (CONTENT, "content.scheduled"),
    "wagtail.schedule.cancel": (CONTENT, "content.scheduled"),
    "wagtail.unpublish": (CONTENT, "content.unpublished"),
    "wagtail.unpublish.scheduled": (CONTENT, "content.unpublished"),
    DELETE: (CONTENT, "content.deleted"),
    "wagtail.lock": (CONTENT, "content.locked"),
    "wagtail.unlock": (CONTENT, "content.unlocked"),
    "wagtail.reorder": (CONTENT, "content.reordered"),
    "wagtail.view_restriction.create": (CONTENT, "content.restricted"),
    "wagtail.view_restriction.edit": (CONTENT, "content.restricted"),
    "wagtail.view_restriction.delete": (CONTENT, "content.restricted"),
    "wagtail.workflow.start": (CONTENT, "workflow.changed"),
    "wagtail.workflow.approve": (CONTENT, "workflow.changed"),
    "wagtail.workflow.reject": (CONTENT, "workflow.changed"),
    "wagtail.workflow.resume": (CONTENT, "workflow.changed"),
    "wagtail.workflow.cancel": (CONTENT, "workflow.changed"),
    "wagtail.comments.create": (COMMENTS, "comment.created"),
    "wagtail.comments.edit": (COMMENTS, "comment.updated"),
    "wagtail.comments.delete": (COMMENTS, "comment.deleted"),
    "wagtail.comments.resolve": (COMMENTS, "comment.updated"),
    "wagtail.comments.create_reply": (COMMENTS, "comment.updated"),
    "wagtail.comments.edit_reply": (COMMENTS, "comment.updated"),
    "wagtail.comments.delete_reply": (COMMENTS, "comment.updated"),
}

# An action that some other app has registered: nobody knows what it changes, so whoever looks at it reads again.
OTHERS = (CONTENT, "content.changed")


def meaning_of(action: str) -> tuple[str, str] | None:
    """The area and the type of the event that tells of an action; None for those of Wagtail that are told by a signal."""
    return ACTIONS.get(action) or (None if action.startswith("wagtail.") else OTHERS)


# What changes a row of the explorer: the parent's children are shown there.
IN_LISTINGS = {
    "content.created", "content.saved", "content.published", "content.unpublished", "content.deleted", "content.locked",
    "content.unlocked", "content.scheduled", "content.reordered", "content.changed", "workflow.changed",
}
# What concerns every page below.
IN_SUBTREES = {"content.deleted", "content.unpublished"}
