"""README's five-minute tour, run as it is printed (on free ports): what it promises is what happens."""

import os
import re
import signal
import subprocess

from kit.stage import ROOT, environment, free_port, program_path, wait_for


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
