"""The cards: README.md of a refiner and of an expanded set, as the hub and ``datasets`` read them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sgdmix_albu.audit.drift_result import Cell
from sgdmix_albu.pretrained.hub import HUB_ID
from sgdmix_albu.printable import printable
from sgdmix_albu.refine.folder import RefinerCard

README = "README.md"
_SHOWN = 50  # classes that are listed
_TRAINING = ("steps", "batch_size", "learning_rate", "token_learning_rate", "rank", "images", "sgdmix_albu")
_SETTINGS = (
    *("saliency", "mask", "fill", "place", "candidates", "target_class", "max_coverage", "feather", "multiplier"),
    *("seed", "size", "min_agreement", "refiner", "refiner_sha256", "base", "preserve", "strengths"),
)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_SEAL = re.compile(rb"\n<!-- Written by sgdmix push; SHA-256 of the text above: ([0-9a-f]{64}) -->\n*")


def model_card(
    card: RefinerCard, *, repository: str, licence: str, about: str | None = None, cells: Sequence[Cell] = ()
) -> str:
    """README.md of a refiner.

    Args:
        card: What ``refiner.json`` says.
        repository: Where it is pushed to.
        licence: As the hub names it.
        about: The photographs, in words.
        cells: What a drift report found; none where there is no report.
    """
    on_hub = HUB_ID.fullmatch(card.base) is not None
    # A folder's place is nobody's business.
    base = card.base if on_hub or card.base.startswith("embedded:") else Path(card.base).name
    return _written(
        "model.md",
        card=card,
        repository=repository,
        licence=licence,
        about=about,
        cells=cells,
        base=base,
        on_hub=on_hub,
        training=_TRAINING,
    )


def dataset_card(
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    repository: str,
    licence: str,
    about: str | None = None,
) -> str:
    """README.md of an expanded set, from which ``load_dataset`` learns which files are images.

    Args:
        rows: Of its manifest.
        settings: What its run was asked for.
        repository: Where it is pushed to.
        licence: As the hub names it.
        about: The photographs, in words.
    """
    shards = any("shard" in row for row in rows)
    return _written(
        "dataset.md",
        repository=repository,
        licence=licence,
        about=about,
        settings=settings,
        names=_SETTINGS,
        paths=["*.tar"] if shards else ["*/**", "metadata.jsonl"],
        images=len(rows),
        size=next((name for most, name in _SIZES if len(rows) < most), "n>1M"),
        mixed=sum(row["target"] is not None for row in rows),
        sources=len({row["source"] for row in rows}),
        counts=sorted(Counter(row["label"] for row in rows).items()),
    )


def files_named(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The images of a manifest, or the shards that hold them."""
    return list(dict.fromkeys(row.get("shard", row["file_name"]) for row in rows))


def is_ours(readme: bytes) -> bool:
    """Whether a ``README.md`` is a card as it was written here: nobody wrote another or edited it since."""
    seal = _SEAL.search(readme)
    return (
        seal is not None
        and seal.end() == len(readme)
        and seal[1].decode() == hashlib.sha256(readme[: seal.start()]).hexdigest()
    )


def _written(template: str, **content: Any) -> str:
    text = _templates().get_template(template).render(shown=_SHOWN, **content)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text}\n<!-- Written by sgdmix push; SHA-256 of the text above: {digest} -->\n"


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("sgdmix_albu.hub"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"text": _text, "code": _code, "said": _said}
    found.globals["zip"] = zip
    return found


def _said(value: Any) -> str:
    """A setting in words: of a backend with options, its name."""
    if isinstance(value, Mapping):
        return str(value.get("saliency", json.dumps(value, sort_keys=True)))
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _text(text: str) -> str:
    """What others wrote, as one line of plain text: no markup of theirs is read."""
    return re.sub(r"([\\`*_{}\[\]<>|#!])", r"\\\1", _line(text))


def _code(text: str) -> str:
    return "`" + _line(text).replace("`", "'").replace("|", "\\|") + "`"


def _line(text: str) -> str:
    return printable(" ".join(text.split()))
