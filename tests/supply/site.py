"""Looks at every link of the site that `mdbook build docs` made: each leads to a page, a file and a part that are there.

    tests/supply/site.py target/book

Links that leave docs/ work in the repository only (docs/README.md says so): there the file has to exist.
"""
import os
import pathlib
import re
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What mdBook makes of all pages together, and its own.
NOT_PAGES = ("print.html", "404.html", "toc.html")


def in_the_repository(site, path):
    """Whether a link out of docs/ means a file of the repository: mdBook has made .html of its .md."""
    source = pathlib.Path(os.path.normpath(ROOT / "docs" / os.path.relpath(path, site)))
    return source.exists() or source.with_suffix(".md").exists()


def faults(site):
    """How many links there are, and those that lead nowhere."""
    pages = {page: page.read_text() for page in site.rglob("*.html") if page.name not in NOT_PAGES}
    parts = {page: set(re.findall(r'\sid="([^"]+)"', text)) for page, text in pages.items()}
    links, dead = 0, []
    for page, text in pages.items():
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:|//", link):
                continue
            links += 1
            path, _, part = link.partition("#")
            target = (page.parent / urllib.parse.unquote(path)).resolve() if path else page
            if site not in target.parents:
                good = in_the_repository(site, target)
            else:
                good = target.exists() and (not part or target not in parts or urllib.parse.unquote(part) in parts[target])
            if not good:
                dead.append(f"{page.relative_to(site)}: {link}")
    return links, dead


def main():
    site = pathlib.Path(sys.argv[1]).resolve()
    links, dead = faults(site)
    print("\n".join(dead))
    print(f"{links} links, {len(dead)} of them lead nowhere")
    sys.exit(bool(dead) or links < 200)


if __name__ == "__main__":
    main()
