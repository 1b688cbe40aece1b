"""README's five-minute tour and its publishers, run as they are printed (on free ports): what is promised is what happens."""

import asyncio
import os
import re
import signal
import subprocess
import sys

import pytest

from kit.editors import Editor
from kit.stage import ROOT, SECURED, environment, free_port, program_path, wait_for

# Each language with its program, its file, what finds Redis in the snippet, and the same for the port of the test.
PUBLISHERS = {
    "sh": ("bash", "publish.sh", "redis-cli", "redis-cli -p {port}"),
    "python": (sys.executable, "publish.py", "redis.Redis()", "redis.Redis(port={port})"),
    "js": ("node", "publish.mjs", "createClient()", "createClient({{ url: 'redis://127.0.0.1:{port}' }})"),
}


def test_the_tour_works_as_printed(tmp_path):
    """Both events of the tour are printed by its `carillon tail`."""
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```sh\n(# tour: .*?)```", readme, re.DOTALL)
    assert len(blocks) == 3, "the tour's blocks were not found"
    # As a person does: what is published waits until `tail` says that it follows.
    *before, publish = blocks
    following = "until grep -q 'following comments:42' tour.log; do sleep 0.1; done"
    script = "set -m\n" + "\n".join([*before, following, publish]) + "\nwait\n"
    for port in ("6379", "8080", "8081", "9090", "9091"):
        assert port in script
        script = script.replace(port, str(free_port()))
    env = {**environment({}), "PATH": program_path(tmp_path)}
    output = tmp_path / "tour.log"
    with output.open("wb") as log:
        shell = subprocess.Popen(["bash", "-c", script], env=env, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        printed = lambda kind: kind in "".join(re.findall(r'^\{.*"(?:event|topic)".*$', output.read_text(), re.M))  # noqa: E731
        for kind in ("comment.created", "comment.deleted"):
            wait_for(f"{kind} in what the tour printed:\n{output.read_text()}", lambda: printed(kind), 60)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{output.read_text()}") from None
    finally:
        # Its jobs have process groups of their own (set -m); all are in its session and end with their pids.
        for pid in children_of_session(shell.pid):
            os.kill(pid, signal.SIGTERM)
        wait_for("the end of the tour", lambda: not children_of_session(shell.pid) and shell.poll() is not None, 30)


def children_of_session(session):
    """Pids of the processes that were started in this session."""
    listed = subprocess.run(["ps", "-o", "pid=,stat=", "--sid", str(session)], capture_output=True, text=True).stdout
    return [int(pid) for pid, state in (line.split() for line in listed.splitlines()) if not state.startswith("Z")]


@pytest.mark.skipif(SECURED, reason="the snippets speak to a Redis without passwords and TLS")
@pytest.mark.parametrize("language", PUBLISHERS)
async def test_the_publishers_work_as_printed(site, tmp_path, language):
    """Each snippet of "Publishing" ends by itself, and what it publishes reaches an editor."""
    publishing = re.search(r"^## Publishing\n(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)[1]
    [snippet] = re.findall(rf"^```{language}\n(.*?)^```", publishing, re.M | re.S)
    program, name, finds, here = PUBLISHERS[language]
    assert finds in snippet
    published = re.findall(r"carillon:([a-z-]+:[a-z0-9_]+)", snippet)
    node = site.node()
    editor = await Editor.open(node, "anna", sorted(set(published)))
    file = tmp_path / name
    file.write_text(snippet.replace(finds, here.format(port=site.redis.port)))
    # Node looks modules up beside the script.
    (tmp_path / "node_modules").symlink_to(ROOT / "tests/.tools/node/node_modules")
    done = await asyncio.to_thread(subprocess.run, [program, str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    await editor.until("what was published", lambda e: len(e.events()) >= len(published))
    assert sorted(event["topic"] for event in editor.events()) == sorted(published)
