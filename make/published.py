"""Make this checkout ready to be published: ``python make/published.py https://github.com/OWNER/NAME v0.2.0``.

A package index shows README.md alone, so its relative links and pictures become links to the repository at the tag; and
``[project.urls]`` learns where the repository is. Nobody commits what this writes. Standard library only.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def main(repository: str, tag: str) -> int:
    """Refuse a second time, and a tag that is not the version; else write both files."""
    pyproject, readme = Path("pyproject.toml"), Path("README.md")
    settings = pyproject.read_text(encoding="utf-8")
    project = tomllib.loads(settings)["project"]
    if "Source" in project["urls"]:
        print("this checkout is ready already: [project.urls] names its Source", file=sys.stderr)
        return 2
    version = project["version"]
    if tag != f"v{version}":
        print(f"the tag must be v{version}, the version in pyproject.toml, got {tag}", file=sys.stderr)
        return 2
    urls = {
        "Source": repository,
        "Issues": f"{repository}/issues",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
    }
    lines = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    pyproject.write_text(settings.replace("[project.urls]\n", f"[project.urls]\n{lines}"), encoding="utf-8")
    readme.write_text(absolute(readme.read_text(encoding="utf-8"), repository, tag), encoding="utf-8")
    return 0


def absolute(text: str, repository: str, tag: str) -> str:
    """The Markdown with relative links, and pictures, that lead to the repository."""

    def link(found: re.Match[str]) -> str:
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}[{found['text']}]({repository}/{kind}/{tag}/{found['to']})"

    relative = r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<to>(?!\w+:|#)[^)\s]+)\)"
    return re.sub(relative, link, text)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
