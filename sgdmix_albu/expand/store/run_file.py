"""A run's own file, ``.sgdmix-run.json``: what was asked for, what is planned, what was written; under a sum."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.names import LISTING, RUN
from sgdmix_albu.expand.plan.rows import UNMIXED
from sgdmix_albu.expand.store.listing import Listed, read_listing
from sgdmix_albu.io.records import (
    UnsoundError,
    anything,
    items,
    mapping,
    optional,
    pair,
    parse,
    record,
    sha256,
    text,
    whole,
)
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.io.sums import Summed, sum_of

_SCHEMA = 2
# Of runs of versions that knew nothing else.
_BEFORE = {"fill": "source", "place": "source", "p": 1.0, "keep_unmixed": False}
_COUNTS = record({}, may=dict.fromkeys((*UNMIXED, "long_name"), whole()))
_ABOUT = record(
    {
        "schema": whole(),
        "settings": mapping(anything),
        "plan": optional(
            record(
                {
                    "rows": whole(),
                    "sha256": sha256,
                    "images_sha256": sha256,
                    "left_out": _COUNTS,
                    "unusable": items(pair(text(), text())),
                }
            )
        ),
        "manifest": optional(
            record(
                {"rows": whole(), "sha256": sha256, "chunks": items(text(64))},
                may={"unmixed": _COUNTS, "inventory": record({"files": whole(), "sum": text(32)})},
            )
        ),
        "sha256": sha256,
    }
)


class RunFile(NamedTuple):
    """What it says."""

    settings: dict[str, Any]
    plan: dict[str, Any] | None
    manifest: dict[str, Any] | None


def write_run(out: Storage, run: RunFile) -> None:
    """Write it, whole or not at all."""
    about = {"schema": _SCHEMA, **run._asdict()}
    out.write(RUN, json.dumps({**about, "sha256": sum_of(about)}, indent=1, allow_nan=False).encode() + b"\n")


def read_run(out: Storage) -> RunFile:
    """What a folder's run was asked for, what it planned and what it wrote.

    Raises:
        DataError: Damaged, or of another version.
    """
    content = out.read(RUN)
    try:
        schema = parse(content, record({"schema": whole()}, others=True))["schema"]
        if schema != _SCHEMA:
            raise DataError(
                f"{out.path(RUN)} has schema {schema}, this version reads {_SCHEMA}; use the version that "
                "started it, or pass --overwrite to start over"
            )
        about = parse(content, _ABOUT)
    except UnsoundError as error:
        raise _damaged(out, RUN, error) from error
    told = about.pop("sha256")
    if told != sum_of(about):
        raise _damaged(out, RUN, "its checksum does not match")
    return RunFile({**_BEFORE, **about["settings"]}, about["plan"], about["manifest"])


def stored_listing(out: Storage) -> Listed | None:
    """The images that a folder's run was begun with; None where there is no run.

    Raises:
        DataError: Damaged.
    """
    if not out.has(RUN):
        return None
    begun, lines = read_run(out), Summed(out.lines(LISTING))
    try:
        listed = read_listing(lines)
    except UnsoundError as error:
        raise _damaged(out, LISTING, error) from error
    if begun.plan is not None and begun.plan["images_sha256"] != lines.sha256:
        raise _damaged(out, LISTING, "its checksum does not match")
    return listed


def _damaged(out: Storage, name: str, why: object) -> DataError:
    return DataError(f"{out.path(name)} is damaged ({why}); pass --overwrite to start over")


def check_same(root: str, begun: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to take up a run under other settings than it was begun with.

    Raises:
        DataError: The first of those that differ.
    """
    other = [
        f"{name} {begun.get(name)!r} (now {wanted.get(name)!r})"
        for name in sorted({*begun, *wanted})
        if begun.get(name) != wanted.get(name)
    ]
    if other:
        raise DataError(
            f"the run in {root} was started with other settings: {', '.join(other[:4])}; use those, choose "
            "another folder, or pass --overwrite to start over"
        )
