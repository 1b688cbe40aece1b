"""Checks of what a release is made of: its workflow, the packages' contents and README files, the Debian package.

Each check is an async function that returns a note or raises AssertionError; `checks()` lists them with their sentences.
"""

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import yaml

import files

ROOT = files.ROOT
WORKFLOWS = ROOT / ".github/workflows"
REPOSITORY = "https://code.example.org/people/carillon"
PACKAGES = {"crate": ".", "client": "client", "node": "integrations/node", "python": "integrations/python", "wagtail": "integrations/wagtail"}


# The crates under another name, and their folders.
CRATES = {"carillon-x": ".", "carillon-x-bench": "crates/bench", "carillon-x-cli": "crates/cli"}


def tree(folder):
    """A copy of what git has of this tree, changes included: a checkout that may be thrown away."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = ROOT / name, Path(folder) / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return Path(folder)


async def workflows():
    for path in sorted(WORKFLOWS.glob("*.yml")):
        workflow = yaml.safe_load(path.read_text())
        for name, job in workflow["jobs"].items():
            assert "timeout-minutes" in job, f"{path.name}: {name} may run for hours"
        # The repository's address comes from where the workflow runs.
        found = re.findall(r"https?://(?!registry\.npmjs\.org)\S+", path.read_text())
        assert not found, f"{path.name} names {found}"
        assert workflow["permissions"] == {"contents": "read"}, f"{path.name}: more rights than a job needs"
    release = yaml.safe_load((WORKFLOWS / "release.yml").read_text())
    # YAML reads `on` as true.
    assert release[True]["push"] == {"tags": ["v[0-9]+.[0-9]+.[0-9]+*"]}
    targets = {entry["target"] for entry in release["jobs"]["binaries"]["strategy"]["matrix"]["include"]}
    assert targets == {f"{machine}-{system}" for machine in ("x86_64", "aarch64") for system in ("unknown-linux-gnu", "apple-darwin")}
    compilers = set(re.findall(r"rust:([\d.]+)-", (ROOT / "deploy/Dockerfile").read_text() + (WORKFLOWS / "release.yml").read_text()))
    assert compilers == {release["env"]["RUST"]}, f"programs and image from different compilers: {compilers}"
    steps = "\n".join(step.get("run", "") for job in release["jobs"].values() for step in job["steps"])
    assert "--features full" in steps, "binaries without jemalloc and traces"
    for name in re.findall(r"\b(?:deploy|tests|integrations)/[\w./-]+", steps):
        assert (ROOT / name).exists(), f"release.yml names {name}, which is not there"
    actionlint = shutil.which("actionlint") or shutil.which("actionlint", path=str(ROOT / "tests/.tools/bin"))
    if not actionlint:
        return "read as YAML; actionlint is not installed here"
    files.run(actionlint, *sorted(map(str, WORKFLOWS.glob("*.yml"))))
    return "actionlint finds nothing"


async def readmes():
    """After `prepare` every link and picture of a README is an address, and its file is there at the tag."""
    links = 0
    with tempfile.TemporaryDirectory() as work:
        copy = tree(work)
        for package, folder in PACKAGES.items():
            files.run(copy / "deploy/release/prepare", folder, f"{REPOSITORY}.git", "v1.2.3", *(["carillon-x"] if package == "crate" else []))
            for target in re.findall(r"\]\(([^()\s]+)\)", (copy / folder / "README.md").read_text()):
                if target.startswith("#"):
                    continue
                links += 1
                assert re.match(r"https?://", target), f"{package}: {target} leads nowhere on a registry"
                if target.startswith(REPOSITORY):
                    kind, tag, path = target.removeprefix(f"{REPOSITORY}/").split("#")[0].split("/", 2)
                    assert tag == "v1.2.3" and (ROOT / path).exists(), target
                    assert (kind == "raw") == path.endswith((".png", ".svg")), target
        lock = (copy / "Cargo.lock").read_text()
        for name, folder in CRATES.items():
            manifest = (copy / folder / "Cargo.toml").read_text()
            assert manifest.count(f'name = "{name}"') == lock.count(f'name = "{name}"') == 1, name
            assert "\nrepository" in manifest, name
        assert f'\nrepository = "{REPOSITORY}"\n' in (copy / "Cargo.toml").read_text()
        machine = re.search(r"^host: (.+)$", files.run("rustc", "-vV"), re.MULTILINE)[1]
        files.run("cargo", "metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", machine, cwd=copy)
        for folder in (PACKAGES["client"], PACKAGES["node"]):
            package = json.loads((copy / folder / "package.json").read_text())
            assert package["repository"] == {"type": "git", "url": f"git+{REPOSITORY}.git", "directory": folder}
        for folder in (PACKAGES["python"], PACKAGES["wagtail"]):
            assert f'Repository = "{REPOSITORY}"' in (copy / folder / "pyproject.toml").read_text()
        # A link to nowhere stops the release.
        with open(copy / "client/README.md", "a", encoding="utf-8") as readme:
            readme.write("\n[x](nowhere.md)\n")
        said = files.run(copy / "deploy/release/prepare", "client", REPOSITORY, "v1.2.3", expect=1)
        assert "client/README.md links to nowhere.md" in said, said
    return f"{links} links"


async def contents():
    """Packages have licence, changelog and README, and nothing that only this tree needs."""
    crate = set(files.run("cargo", "package", "--list", "--allow-dirty", "--offline").splitlines())
    assert {"LICENSE", "CHANGELOG.md", "README.md", "Cargo.lock", "client/realtime.js", "demo/index.html"} <= crate
    odd = {name.split("/")[0] for name in crate} - {"src", "client", "demo"}
    assert not odd & {"tests", "deploy", "docs", "integrations", "fuzz", "benches", ".ci", ".github"}, f"the crate contains {sorted(odd)}"
    for folder in ("crates/bench", "crates/cli"):
        names = set(files.run("cargo", "package", "--list", "--allow-dirty", "--offline", "--manifest-path", f"{folder}/Cargo.toml").splitlines())
        assert {"LICENSE", "README.md", "src/lib.rs"} <= names, f"{folder}: {sorted(names)}"
    for folder in (PACKAGES["client"], PACKAGES["node"]):
        (packed,) = json.loads(subprocess.run(["npm", "pack", "--dry-run", "--json"], cwd=ROOT / folder, capture_output=True, check=True).stdout)
        names = {entry["path"] for entry in packed["files"]}
        assert {"LICENSE", "CHANGELOG.md", "README.md", "package.json"} <= names, f"{folder}: {sorted(names)}"
        assert not [name for name in names if name.startswith("test/")], f"{folder} contains its tests"
    for folder in (PACKAGES["python"], PACKAGES["wagtail"]):
        for name in ("LICENSE", "CHANGELOG.md", "README.md"):
            assert (ROOT / folder / name).stat().st_size > 0, f"{folder}/{name}"
    return f"{len(crate)} files in the crate"


def debian(binary):
    async def check():
        with tempfile.TemporaryDirectory() as work:
            files.run(ROOT / "deploy/release/deb", binary, "1.2.3-rc.1", "amd64", work)
            (package,) = Path(work).glob("*.deb")
            fields = files.run("dpkg-deb", "--field", package)
            assert "Version: 1.2.3~rc.1-1\n" in fields, fields
            files.run("dpkg-deb", "--extract", package, f"{work}/root")
            root = Path(work) / "root"
            listed = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
            assert listed == {
                "usr/bin/carillon", "lib/systemd/system/carillon.service", "usr/share/man/man1/carillon.1.gz",
                "usr/share/doc/carillon/copyright", "usr/share/doc/carillon/changelog.gz",
            }, listed
            unit = (root / "lib/systemd/system/carillon.service").read_text()
            assert "ExecStart=/usr/bin/carillon serve" in unit and "/usr/local" not in unit
            owners = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
            (Path(work) / "tar").write_bytes(owners)
            with tarfile.open(Path(work) / "tar") as members:
                for member in members:
                    assert member.uid == member.gid == 0 and not member.mode & 0o022, f"{member.name}: {member.mode:o}"
            files.run(root / "usr/bin/carillon", "--version")

    return check


def checks(binary):
    return [
        ("the workflows name no address, have limits, and build every target with all features", workflows),
        ("on registries every link and picture of a README leads somewhere", readmes),
        ("packages bring licence, changelog and README, and nothing else of this tree", contents),
        ("the Debian package holds program, unit, manual page and licence, owned by root", debian(binary)),
    ]
