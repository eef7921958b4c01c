"""The end of a run: the manifest from what its chunks say, and the list of images that could not be used."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sgdmix_albu.datasets.source import Skipped
from sgdmix_albu.errors import DataError
from sgdmix_albu.expand.names import METADATA, QUARANTINE
from sgdmix_albu.expand.store.manifest import Inventory, file_of
from sgdmix_albu.io.records import UnsoundError, line, parse, record, text
from sgdmix_albu.io.storage import Storage

_QUARANTINED = record({"source": text(), "reason": text()})

# What rows that an earlier version wrote do not say: all were mixed, and nothing moved. Every row of a manifest has
# every field.
_NEWER = {
    "mixed": True,
    "unmixed_because": None,
    "refused_over_coverage": None,
    "place": "source",
    "placement": None,
    "source_threshold": None,
    "target_threshold": None,
}


def manifest_lines(
    done: Iterable[list[dict[str, Any]]],
    reasons: dict[str, str],
    tell: Callable[[dict[str, Any], Mapping[str, str]], None],
) -> Iterator[bytes]:
    """The manifest's lines, a chunk at a time; what is to be told of them is told when all have passed.

    Args:
        done: The rows of each chunk.
        reasons: Why images could not be used; those of the chunks are added.
        tell: Gets what is noted of the manifest, and the reasons, before the manifest appears.
    """
    digest, count, sums, inventory = hashlib.sha256(), 0, [], Inventory()
    unmixed: Counter[str] = Counter()
    for rows in done:
        reasons |= {row["skipped"]: row["reason"] for row in rows if "skipped" in row}
        unmixed.update(filter(None, (row.get("unmixed_because") for row in rows)))
        for name, size in dict(file_of(row) for row in rows if "skipped" not in row).items():
            inventory.add(name, size)
        lines = lines_of(rows)
        digest.update(lines)
        count += lines.count(b"\n")
        sums.append(short_sum(lines))
        yield lines
    told = {"chunks": sums, "unmixed": dict(unmixed), "inventory": inventory.said()}
    tell({"rows": count, "sha256": digest.hexdigest(), **told}, reasons)


def with_every_field(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the fields that versions before this one did not write."""
    # What a shard says of its images is not changed any more.
    return row if any(name in row for name in ("skipped", "mixed", "shard")) else {**row, **_NEWER}


def write_quarantine(out: Storage, reasons: Mapping[str, str]) -> None:
    """Write the list of images that could not be used, and why."""
    out.write_lines(QUARANTINE, (line({"source": key, "reason": reason}) for key, reason in reasons.items()))


def read_quarantine(out: Storage) -> list[Skipped]:
    """That list.

    Raises:
        DataError: It is damaged.
    """
    found = []
    for one in out.lines(QUARANTINE):
        try:
            row = parse(one, _QUARANTINED)
            found.append(Skipped(row["source"], row["reason"]))
        except UnsoundError as error:
            remedy = f"remove {out.path(METADATA)} to rebuild both"
            raise DataError(f"{out.path(QUARANTINE)} is damaged; {remedy}") from error
    return found


def lines_of(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The manifest's lines of a chunk."""
    return b"".join(line(row) for row in rows if "skipped" not in row)


def short_sum(lines: bytes) -> str:
    """Enough to see damage, and short: there is one for each chunk."""
    return hashlib.sha256(lines).hexdigest()[:16]
