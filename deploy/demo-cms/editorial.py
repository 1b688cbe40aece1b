"""What editors can do in the pretend CMS, and the one database that its instances share (a key in Redis).

The rules are those of demo/API.md: a write first changes the state, then publishes. Knows nothing of HTTP.
"""

import json

import redis

from publisher import REDIS_ERRORS, connect, now, renewed

STATUSES = {"draft": "Draft", "in_review": "In review", "approved": "Approved", "published": "Published"}
PROJECT_STATUSES = ("active", "on_hold", "done")
COMMENTS, NOTIFICATIONS = 200, 100


class Refused(Exception):
    """An answer other than 200: status, code and a sentence."""

    def __init__(self, status, code, detail):
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


class Database:
    """The whole state in one key, changed under an optimistic lock: whoever comes second does it again on the new state."""

    KEY = "demo-cms:state"

    def __init__(self, seed):
        self.user = ("cms", "redis-cms")
        self.redis = connect(*self.user)
        self.seed = seed

    def read(self):
        text = self.redis.get(self.KEY)
        return State(json.loads(text) if text else self.seed())

    def write(self, change):
        """Applies `change(state)`; returns what it returned."""
        while True:
            with self.redis.pipeline(transaction=True) as pipe:
                try:
                    pipe.watch(self.KEY)
                    text = pipe.get(self.KEY)
                    state = State(json.loads(text) if text else self.seed())
                    result = change(state)
                    pipe.multi()
                    pipe.set(self.KEY, json.dumps(state.data))
                    pipe.execute()
                    return result
                except redis.exceptions.WatchError:
                    continue
                except REDIS_ERRORS:
                    self.redis = renewed(self.redis, *self.user)
                    raise


class State:
    def __init__(self, data):
        self.data = data

    # --- reading --------------------------------------------------------------------------------------------------------
    def find(self, table, key, code):
        for row in self.data[table]:
            if str(row["id"]) == str(key):
                return row
        raise Refused(404, code, f"There is no {code.removeprefix('no-such-')} {key}.")

    def editor(self, key):
        if not isinstance(key, str):
            raise Refused(400, "bad-request", "The field `editor` is missing.")
        return self.find("editors", key, "no-such-editor")

    def project(self, key):
        row = self.find("projects", key, "no-such-project")
        items = sum(item["project"] == row["id"] for item in self.data["items"])
        comments = sum(comment["project"] == row["id"] for comment in self.data["comments"])
        return {**row, "items": items, "comments": comments}

    def item(self, project, key):
        row = self.find("items", key, "no-such-item")
        if str(row["project"]) != str(project):
            raise Refused(404, "no-such-item", f"Project {project} has no item {key}.")
        return row

    def comments(self, project):
        return [comment for comment in reversed(self.data["comments"]) if comment["project"] == project]

    def notifications(self, editor):
        return [note for note in reversed(self.data["notifications"]) if note["to"] == editor]

    def unread(self, editor):
        return sum(not note["read"] for note in self.notifications(editor))

    # --- writing --------------------------------------------------------------------------------------------------------
    def next_id(self, letter, table):
        counters = self.data.setdefault("counters", {})
        highest = max((int(row["id"][1:]) for row in self.data[table]), default=0)
        counters[letter] = max(counters.get(letter, 0), highest) + 1
        return f"{letter}{counters[letter]}"

    def touch(self, row, editor):
        row["modified"], row["modified_by"] = now(), editor["id"]

    def trim(self, table, same, keep):
        rows = [row for row in self.data[table] if same(row)]
        for row in rows[: max(0, len(rows) - keep)]:
            self.data[table].remove(row)

    def add_comment(self, project, kind, item, editor, text):
        comment = {"id": self.next_id("c", "comments"), "project": project, "kind": kind, "item": item, "author": editor["id"], "text": text, "created": now()}
        self.data["comments"].append(comment)
        self.trim("comments", lambda row: row["project"] == project, COMMENTS)
        return comment

    def add_notification(self, to, sender, text, project):
        note = {"id": self.next_id("n", "notifications"), "to": to, "from": sender["id"], "text": text, "project": project, "read": False, "created": now()}
        self.data["notifications"].append(note)
        self.trim("notifications", lambda row: row["to"] == to, NOTIFICATIONS)
        event = (f"notifications:{to}", "notification.created", {"notification": note["id"], "unread": self.unread(to)})
        return note, event

    # Each write returns (what it changed, the events to publish in this order).
    def comment(self, editor, project, text, item=None):
        row = self.find("projects", project, "no-such-project")
        if item is not None:
            self.item(project, item)
        comment = self.add_comment(row["id"], "comment", item, editor, text)
        self.touch(row, editor)
        events = [(f"comments:{row['id']}", "comment.created", {"project": row["id"], "comment": comment["id"], "item": item})]
        for other in self.data["editors"]:
            if other["id"] != editor["id"] and f"@{other['id']}" in text:
                short = text if len(text) <= 80 else text[:80]
                _, event = self.add_notification(other["id"], editor, f"{editor['name']} mentioned you: “{short}”", row["id"])
                events.append(event)
        return {"comment": comment}, events

    def saved(self, item):
        content = {"id": item["id"], "content": item["content"], "language": item["language"]}
        return (f"project-items:{item['project']}", "project_item.saved", {"project": item["project"], "items": [content], "status": item["status"]})

    def move(self, editor, project, key, status, words=None):
        item = self.item(project, key)
        if status not in STATUSES:
            raise Refused(400, "bad-request", f"The field `status` must be one of {', '.join(STATUSES)}.")
        content = self.find("contents", item["content"], "no-such-content")
        item["status"], item["version"] = status, item["version"] + 1
        self.touch(item, editor)
        activity = self.add_comment(item["project"], "activity", item["id"], editor, words or f"moved “{item['name']}” to {STATUSES[status]}")
        events = [
            self.saved(item),
            (f"comments:{item['project']}", "activity.created", {"project": item["project"], "activity": activity["id"], "item": item["id"]}),
        ]
        if status == "published":
            content["published_version"] = item["version"]
            data = {"project": item["project"], "content": content["id"], "language": content["language"], "version": item["version"]}
            events.append((f"content:{content['id']}", "content.published", data))
        return {"item": item}, events

    def approve(self, editor, project, key):
        item = self.item(project, key)
        before = item["modified_by"]
        answer, events = self.move(editor, project, key, "approved", f"approved “{item['name']}”")
        if before != editor["id"]:
            _, event = self.add_notification(before, editor, f"{editor['name']} approved “{item['name']}”.", item["project"])
            events.append(event)
        return answer, events

    def project_status(self, editor, project, status):
        row = self.find("projects", project, "no-such-project")
        if status not in PROJECT_STATUSES:
            raise Refused(400, "bad-request", f"The field `status` must be one of {', '.join(PROJECT_STATUSES)}.")
        row["status"] = status
        self.touch(row, editor)
        return {"project": self.project(project)}, [("projects", "project.status", {"project": row["id"], "status": status})]

    def save(self, editor, key, title=None, teaser=None):
        content = self.find("contents", key, "no-such-content")
        item = self.find("items", content["item"], "no-such-item")
        if title is None and teaser is None:
            raise Refused(400, "bad-request", "One of the fields `title` and `teaser` is needed.")
        if title is not None:
            content["title"] = item["name"] = title
        if teaser is not None:
            content["teaser"] = teaser
        for row in (content, item):
            row["version"] += 1
            self.touch(row, editor)
        data = {"project": content["project"], "content": content["id"], "language": content["language"], "version": content["version"]}
        return {"content": content}, [(f"content:{content['id']}", "content.saved", data), self.saved(item)]

    def notify(self, editor, to, text, project=None):
        self.editor(to)
        if project is not None:
            project = self.find("projects", project, "no-such-project")["id"]
        note, event = self.add_notification(to, editor, text, project)
        return {"notification": note}, [event]

    def read(self, editor, key=None, everything=False):
        topic = f"notifications:{editor['id']}"
        if everything:
            for note in self.notifications(editor["id"]):
                note["read"] = True
            return {"unread": 0}, [(topic, "notification.read_all", {"unread": 0})]
        note = self.find("notifications", key, "no-such-notification")
        if note["to"] != editor["id"]:
            raise Refused(404, "no-such-notification", f"{editor['id']} has no notification {key}.")
        note["read"] = True
        unread = self.unread(editor["id"])
        return {"unread": unread}, [(topic, "notification.read", {"notification": note["id"], "unread": unread})]
