"""What is built and brought up: images, users, rights, secrets, the command line inside."""

import asyncio
import json
import time
from pathlib import Path

from kit.rig.editors import until
from kit.rig.stack import http, megabytes, next_release, process_status, stopwatch


class ImageChecks:
    """Checks of the images and of the running containers; `self` is the rig."""

    async def images(self):
        watch = stopwatch()
        await self.stack.aside(*self.stack.command, "build", "node", "cms-setup", timeout=3600)
        first = watch()
        releases = await asyncio.to_thread(next_release, self.tree, self.tree.parent / "next")
        await self.stack.aside(
            "docker", "build", "-f", str(self.tree.parent / "next/deploy/Dockerfile"), "-t", "carillon:rig-next",
            # Another program with the same dependencies; without optimisation it compiles in a fraction of the time.
            "--build-arg", f"VERSION={releases[1]}", "--build-arg", "CARGO_OPTIONS=--config=profile.release.package.carillon.opt-level=0",
            str(self.tree.parent / "next"), timeout=3600,
        )
        return f"release {releases[0]} in {first:.0f} s, release {releases[1]} in {watch() - first:.0f} s more"

    async def size(self):
        image = self.stack.inspect("carillon:rig")
        size = image["Size"]
        assert size < 60e6, f"{megabytes(size)} is not small"
        config = image["Config"]
        assert config["User"] == "10001:10001", config["User"]
        assert config["Healthcheck"]["Test"][-1] == "health", config["Healthcheck"]
        assert config["StopSignal"] == "SIGTERM"
        assert config["Labels"]["org.opencontainers.image.title"] == "Carillon"
        return f"image size {megabytes(size)}"

    async def start_time(self):
        node = self.stack.ids("node")[0]
        await self.stack.aside("docker", "stop", node)
        code = self.stack.inspect(node)["State"]["ExitCode"]
        assert code == 0, f"SIGTERM ended it with exit code {code}"
        await self.stack.aside("docker", "start", node)
        started = self.stack.inspect(node)["State"]["StartedAt"]
        # The container's clock is this machine's: nanoseconds are cut to what Python reads.
        moment = time.mktime(time.strptime(started[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone + float("0" + started[19:].rstrip("Z"))
        address = self.stack.address(node)
        deadline = time.time() + 20
        while (answer := http(f"http://{address}:9090/readyz", timeout=1))[0] != 200:
            assert time.time() < deadline, f"not ready after 20 s: {answer}"
            await asyncio.sleep(0.005)
        took = time.time() - moment
        await until(lambda: self.stack.health(node) == "healthy", 20, "HEALTHCHECK says healthy")
        return f"start time {took * 1000:.0f} ms from the start of the process to ready"

    async def hardened(self):
        for node in self.stack.ids("node"):
            seen = self.stack.inspect(node)
            assert seen["HostConfig"]["ReadonlyRootfs"], "the root file system can be written"
            assert seen["HostConfig"]["Privileged"] is False
            status = process_status(seen["State"]["Pid"])
            assert status["Uid"].split() == ["10001"] * 4, f"runs as {status['Uid']}"
            assert int(status["CapEff"], 16) == 0 == int(status["CapBnd"], 16), f"capabilities {status['CapEff']}, {status['CapBnd']}"
            assert status["NoNewPrivs"] == "1"
            mounts = Path(f"/proc/{seen['State']['Pid']}/mountinfo").read_text().splitlines()
            root = next(line.split() for line in mounts if line.split()[4] == "/")
            assert "ro" in root[5].split(","), f"root is mounted {root[5]}"
            assert not seen["HostConfig"]["PortBindings"], "a node publishes a port of its own"
        exposed = {
            (port, door["HostIp"]) for service in ("redis", "database", "cms-01", "cms-02", "balancer")
            for port, bound in (self.stack.inspect(self.stack.ids(service)[0])["NetworkSettings"]["Ports"] or {}).items() for door in bound or ()
        }
        assert exposed == {("8080/tcp", "127.0.0.1")}, f"published: {exposed}"
        status, _ = http(f"{self.stack.origin}/metrics")
        assert status == 404, f"/metrics through the balancer: {status}"
        return "uid 10001, read-only root, no capabilities, no new privileges, only the balancer's port published, on 127.0.0.1"

    async def cli(self):
        node = self.stack.ids("node")[0]
        mint = ("carillon", "token", "mint", "--sub", "anna", "--topics", "comments:42", "--ttl", "60s")
        # Its output is a token, which does not belong in a log.
        token = self.stack.run("docker", "exec", node, *mint, quiet=True).split()[-1]
        assert token.count(".") == 2, "no token"
        status, body = http(f"{self.stack.origin}/realtime/poll?topics=comments:42&token={token}")
        assert status == 200 and json.loads(body)["messages"][0]["user"] == "anna", f"{status} {body}"
        shown = self.stack.run("docker", "exec", node, "carillon", "config", "show")
        for name in ("jwt", "redis-node", "publish-token"):
            assert self.stack.secret(name) not in shown, f"config show prints {name}"

    async def rights(self):
        """Redis' users have exactly the rights that the program says they need."""
        node = self.stack.ids("node")[0]
        said = self.stack.run("docker", "exec", node, "carillon", "redis-function", "--acl")
        given = self.stack.secret("users.acl")
        for user in ("carillon-node", "carillon-publisher"):
            printed = next(line.split() for line in said.splitlines() if line.startswith(f"ACL SETUSER {user} "))[3:]
            written = next(line.split() for line in given.splitlines() if line.startswith(f"user {user} "))[2:]
            rights = [{word for word in words if word[0] not in "#>"} for words in (printed, written)]
            differ = rights[0] ^ rights[1]
            assert not differ, f"{user}: `redis-function --acl` and deploy/compose/make-secrets differ in {sorted(differ)}"
        return "the rig runs with the least-privilege users"

    async def logs(self):
        """Of what runs for long: the first start prints the editors' passwords, which is what people read there."""
        text = self.stack.compose("logs", "--no-color", "--tail=all", "node", "cms-01", "cms-02", "balancer", "redis", "database", quiet=True)
        names = ("jwt", "redis-node", "redis-publisher", "redis-admin", "publish-token", "database", "cms-key")
        for name, secret in [*((name, self.stack.secret(name)) for name in names), *self.newsroom.passwords.items()]:
            assert secret not in text, f"a log has the secret of {name}"
        assert "eyJ" not in text, "a log has a token"
        assert "panicked" not in text, "a node panicked"
        assert "Traceback" not in text, f"an instance of the CMS failed: {text[text.index('Traceback') :][:1500]}"
