"""Print constraints that hold every requirement of pyproject.toml at its lower bound: ``x>=1.2`` as ``x==1.2.*``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[.*\])?>=(?P<version>[\d.]+)")


def main() -> None:
    """Core, dev, diffusion, docs and ray: what the tests need."""
    with Path(__file__).parents[1].joinpath("pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    for requirement in [
        *project["dependencies"],
        *extras["dev"],
        *extras["diffusion"],
        *extras["docs"],
        *extras["ray"],
    ]:
        match = REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise SystemExit(f"pyproject.toml: expected NAME>=VERSION, got {requirement!r}")
        print(f"{match['name']}=={match['version']}.*")


if __name__ == "__main__":
    main()
