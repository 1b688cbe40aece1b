"""A flood: honest sessions keep receiving while thousands of connections are slow, and thousands are nonsense.

One Redis, one `carillon serve` as it comes, `carillon bench` with the honest sessions: rounds by turns undisturbed and
while the attackers (attackers.py) are at it, so that whatever else the machine does falls on both. Fails where a session
lost an event or ended, where the attackers did not all get through to the node, or where the flood more than doubles the
p99: that of the median round, and so clearly that even the best flooded round needs twice as long as the worst quiet one.
On a busy machine the rounds differ among themselves; where other programs took more than a tenth of its processors,
latencies say nothing and are not judged, and a session that was told to refetch has lost nothing.
"""

import argparse
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from kit.machine import free_port  # noqa: E402 - found by the line above

ROOT = HERE.parents[1]
PROGRAM = os.environ.get("CARILLON_BIN") or str(ROOT / "target/release/carillon")
SECRET = "a-shared-secret-of-the-flood-test-0123456789"
PER_PROCESS = 5000
# How long a busy machine may take for what takes an idle one seconds.
PATIENCE = 300


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def wait_for(what, predicate, seconds):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := predicate():
                return found
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"after {seconds} s: not {what}")
        time.sleep(0.05)


def no_loss(report):
    """Whether nothing was lost or came twice; who was told to refetch has lost nothing."""
    return not any(one["faults"][name] for one in report["rounds"] for name in ("lost", "doubled", "out_of_order"))


class Processors:
    """What others took of the machine's processors since this was made."""

    # More than so much of them: the machine is busy.
    BUSY = 0.1

    def __init__(self, processes):
        self.processes = processes
        self.begun = self.now()

    def now(self):
        """Ticks of all processors: of all programs (and of other guests of the host), of ours, and all there are."""
        user, nice, system, idle, wait, _, _, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        ours = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
        for process in self.processes:
            if process.poll() is None:
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                ours += int(fields[11]) + int(fields[12])
        taken = user + nice + system + steal
        return taken, ours, taken + idle + wait

    def others(self):
        """A share, from 0 to 1."""
        taken, ours, there = (now - before for now, before in zip(self.now(), self.begun))
        return max(0.0, taken - ours) / max(1, there)


class Flood:
    def __init__(self, options, place):
        self.options, self.place = options, Path(place)
        self.processes = []
        self.port, self.internal = free_port(), free_port()
        redis = free_port()
        self.redis = f"redis://127.0.0.1:{redis}"
        self.start(["redis-server", "--bind", "127.0.0.1", "--port", str(redis), "--save", "", "--dir", str(place)], "redis")
        self.environment = {
            "PATH": os.environ["PATH"],
            "CARILLON__HTTP__LISTEN": f"127.0.0.1:{self.port}",
            "CARILLON__INTERNAL__LISTEN": f"127.0.0.1:{self.internal}",
            "CARILLON__AUTH__MODE": "jwt",
            "CARILLON__AUTH__SECRET": SECRET,
            "CARILLON__REDIS__URL": self.redis,
            "CARILLON__DRAIN__WINDOW_SECONDS": "0",
            # All honest sessions are one editor's here.
            "CARILLON__LIMITS__SESSIONS_PER_EDITOR": "0",
            "CARILLON__LIMITS__EDITOR_REQUESTS_PER_SECOND": "0",
        }
        self.node = self.start([PROGRAM, "serve"], "node", self.environment)
        wait_for("the node ready", lambda: "true" in get(self.url("/readyz")), PATIENCE)

    def url(self, path):
        return f"http://127.0.0.1:{self.internal}{path}"

    def start(self, command, name, env=None, **more):
        log = (self.place / f"{name}.log").open("wb")
        process = subprocess.Popen(command, env=env, stderr=log, **{"stdin": subprocess.DEVNULL, "stdout": log, **more})
        self.processes.append(process)
        return process

    def bench(self):
        """One round of the honest sessions: its report."""
        mint = [PROGRAM, "token", "mint", "--sub", "honest", "--topics", "*", "--ttl", "1h"]
        token = subprocess.run(mint, env=self.environment, capture_output=True, text=True, check=True).stdout.strip()
        options = self.options
        command = [
            PROGRAM, "bench", "--node", f"ws://127.0.0.1:{self.port}/realtime", "--redis", self.redis, "--token", token, "--json",
            "--pid", str(self.node.pid), "--sessions", str(options.sessions), "--pace", str(options.pace),
            "--events", str(int(options.pace * options.seconds)), "--rounds", "1",
        ]
        out, _ = self.start(command, "bench", self.environment, stdout=subprocess.PIPE).communicate(timeout=PATIENCE)
        return json.loads(out)

    def attack(self):
        parts = []
        for kind, count in (("loris", self.options.loris), ("garbage", self.options.garbage)):
            for first in range(0, count, PER_PROCESS):
                address = str(len(parts) + 1)
                command = [sys.executable, str(HERE / "attackers.py"), kind, str(self.port), str(min(PER_PROCESS, count - first)), address]
                parts.append(self.start(command, f"attackers-{address}", stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return parts

    def run(self):
        quiet, flooded, figures, peak = [], [], {}, 0
        processors = Processors(self.processes)
        for _ in range(self.options.rounds):
            quiet.append(self.bench())
            parts = self.attack()
            # A round begins once each attack has its full size, which takes a busy machine a while.
            deadline = time.monotonic() + PATIENCE
            for part in parts:
                if select.select([part.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                    part.stdout.readline()
            flooded.append(self.bench())
            peak = max(peak, self.files())
            for part in parts:
                told = json.loads(part.communicate(timeout=PATIENCE)[0].split(b"\n")[-2])
                sums = figures.setdefault(told.pop("kind"), {})
                for name, count in told.items():
                    sums[name] = sums.get(name, 0) + count
        refused = {line.partition('"')[2].partition('"')[0]: int(float(line.rpartition(" ")[2]))
                   for line in get(self.url("/metrics")).splitlines() if line.startswith("carillon_refused_total{")}
        return self.verdict(quiet, flooded, figures, peak, refused, processors.others())

    def files(self):
        """Files that the node has open."""
        return len(os.listdir(f"/proc/{self.node.pid}/fd"))

    def verdict(self, quiet, flooded, figures, peak, refused, others):
        machine = quiet[0]["machine"]
        print(f"machine   {machine['cpus']} × {machine['model']}, Linux {machine['kernel']}")
        print(f"load      {self.options.sessions} honest sessions, {self.options.pace:g} events a second, rounds of {self.options.seconds:g} s")
        p99 = {"quiet": [], "flooded": []}
        for pair in zip(quiet, flooded):
            for name, report in zip(p99, pair):
                for one in report["rounds"]:
                    times = one["latency_micros"]
                    p99[name].append(times["p99"] / 1000)
                    print(f"{name:<9} p50 {times['p50'] / 1000:6.2f} ms  p99 {times['p99'] / 1000:6.2f} ms  max {times['max'] / 1000:6.2f} ms  "
                          f"{one['deliveries']} delivered, {one['faults']['lost']} lost")
        for kind, sums in figures.items():
            print(f"{kind:<9} " + ", ".join(f"{count} {name}" for name, count in sums.items()))
        print(f"node      at most {peak} files open; refused: {refused}")
        before, during = (statistics.median(p99[name]) for name in p99)
        print(f"p99       {before:.2f} ms quiet, {during:.2f} ms flooded: {during / before:.2f} times (medians)")
        busy = others > Processors.BUSY
        print(f"others    took {others:.0%} of the processors" + (": the machine is busy, and latencies are not judged" if busy else ""))
        faults = []
        if not all((report["flawless"] or busy and no_loss(report)) and len(report["rounds"]) == 1 for report in quiet + flooded):
            faults.append("a session lost an event, got one twice or ended")
        if not busy and during > 2 * before and min(p99["flooded"]) > 2 * max(p99["quiet"]):
            faults.append("the flood more than doubles the p99")
        for kind, wanted in (("loris", self.options.loris), ("garbage", self.options.garbage)):
            if figures.get(kind, {}).get("made", 0) < wanted * self.options.rounds:
                faults.append(f"fewer than {wanted} {kind} connections were made in a round")
        return faults

    def stop(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value, kind in (("sessions", 500, int), ("loris", 10000, int), ("garbage", 10000, int), ("pace", 20, float),
                              ("seconds", 10, float), ("rounds", 3, int)):
        parser.add_argument(f"--{name}", type=kind, default=value)
    with tempfile.TemporaryDirectory(prefix="carillon-flood-") as place:
        flood = Flood(parser.parse_args(), place)
        try:
            faults = flood.run()
        finally:
            flood.stop()
    for fault in faults:
        print(f"FAILED: {fault}")
    print(f"{1 - bool(faults)} passed, {int(bool(faults))} failed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
