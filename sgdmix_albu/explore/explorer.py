"""One image under the settings of the page: its target, its mix, what each step cost, and why it was left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from sgdmix_albu.audit.panels import Pixels, heat, masked, photograph
from sgdmix_albu.bank.parts import unpacked
from sgdmix_albu.datasets.source import Item, open_source
from sgdmix_albu.errors import DataError, UnknownNameError
from sgdmix_albu.expand.execute.pair import Pair, mix_pair
from sgdmix_albu.expand.models import open_refiner
from sgdmix_albu.expand.plan.finder import Choice, Finder
from sgdmix_albu.expand.plan.targets import draw_candidate_rows, placed, seeds_and_chances
from sgdmix_albu.expand.summary import WHY
from sgdmix_albu.explore.album import Album, descriptors_of
from sgdmix_albu.explore.lines import command_line, python_lines
from sgdmix_albu.explore.wishes import Choices, Given, run_settings, saliency_settings
from sgdmix_albu.registry import nearest_names
from sgdmix_albu.settings import Settings

if TYPE_CHECKING:
    from sgdmix_albu.bank.parts import Entry

T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """What the page shows of one image.

    Attributes:
        key: The image.
        target: The chosen target; None where the image is left alone.
        candidates: Keys of the images that it was chosen from.
        unmixed: Why the image is left alone, in words; None where it is mixed.
        panels: Picture of each step by its title, (S, S, 3) uint8.
        facts: Costs of one image, and measures, in words.
        result: (3, S, S) uint8, the picture that a run would write.
        python: The transform for a training script.
        command: The command that writes this picture.
    """

    key: str
    target: str | None
    candidates: tuple[str, ...]
    unmixed: str | None
    panels: dict[str, Pixels]
    facts: dict[str, str]
    result: Tensor
    python: str
    command: str


class Explorer:
    """Looks at the images of a set, one at a time. Threads may share it; they take turns.

    The target, the mask and the mix are those that ``sgdmix mix`` gives under the same settings, as long as every image
    of the set can be read: a run leaves out all that cannot be, this only those that it has met.

    Args:
        given: The data, and what does not change.

    Raises:
        InvalidInputError: No data, or two; or what was given does not go together.
        UnknownNameError: No such backend or refiner.
        MissingExtraError: The package of a backend that was asked for is not installed.
        DataError: There is no such folder, or no image in it; or a bank, a classifier or a refiner cannot be used.

    Example:
        >>> explorer = Explorer(Given(dataset="aviary", size=64))
        >>> look = explorer.look(explorer.keys[0], Choices(saliency="spectral_residual", candidates=5))
        >>> len(look.candidates), look.target in look.candidates, tuple(look.result.shape)
        (5, True, (3, 64, 64))
    """

    def __init__(self, given: Given) -> None:
        self.given = given
        self.album = Album(open_source(given.data, given.dataset, size=given.size), given.size)
        self.keys = [item.key for item in self.album.source.items]
        self._lock = threading.Lock()
        # Better to learn now than on the page what cannot be used.
        for name in given.asked_for:
            self.album.maps(saliency_settings(given, name))
        if given.refiner is not None:
            self._refiner = open_refiner(given.refiner)

    def find(self, text: str) -> str:
        """The image that a text means: its key, or the first of which it is a part.

        Raises:
            UnknownNameError: There is none.
        """
        if text in self.album.row_of:
            return text
        found = next((key for key in self.keys if text.lower() in key.lower()), None) if text else None
        if found is None:
            raise UnknownNameError(f"no image is called {text!r}{nearest_names(text, self.keys[:1000])}")
        return found

    def beside(self, key: str, step: int) -> str:
        """The image so many places further on; after the last comes the first."""
        return self.keys[(self.album.row_of[key] + step) % len(self.keys)]

    def unusable(self, choices: Choices) -> dict[str, str]:
        """Key and reason of each image that was tried and cannot be used."""
        return self.album.unusable(run_settings(self.given, choices))

    def look(self, key: str, choices: Choices) -> Look:
        """One image under some settings.

        Args:
            key: One of ``keys``.
            choices: What is set.

        Raises:
            InvalidInputError: Choices that do not go together.
            UnknownNameError: No such backend or mask.
            MissingExtraError: The backend's package is not installed.
            DataError: The image cannot be read; or the refiner has no weights.
        """
        settings = run_settings(self.given, choices)
        with self._lock:
            return self._look(self.album.source.items[self.album.row_of[key]], choices, settings)

    def _look(self, item: Item, choices: Choices, settings: Settings) -> Look:
        album, size = self.album, (self.given.size, self.given.size)
        result = pixels = album.pixels(item).pixels
        row, items, entries = self._described(item, settings)
        choice, choose_ms = _timed(lambda: _choose(items, entries, settings))
        mask = unpacked(entries[0].mask, size)
        map_ms, mask_ms = album.milliseconds(settings)
        facts = {
            "saliency, an image": _ms(map_ms),
            "mask, an image": _ms(mask_ms),
            "the mask covers": _share(mask),
            "candidates": str(len(items) - 1),
            "nearer ones refused": str(choice.refused),
        }
        panels = {
            "image": photograph(pixels),
            "saliency": heat(self._map(item, settings), size),
            "mask": masked(pixels, mask),
        }
        target = None if choice.target is None else items[choice.target]
        if choice.target is not None and target is not None:
            background, other = album.pixels(target).pixels, unpacked(entries[choice.target].mask, size)
            where = placed(np.array([row]), settings.seed)[0].tolist() if settings.place == "random" else None
            pair, mix_ms = _timed(lambda: mix_pair(pixels, background, mask, other, settings=settings, placed=where))
            result = pair.pixels
            panels |= {"target": photograph(background), "target's mask": masked(background, other)}
            panels |= {"mixed": photograph(result)}
            facts |= {"choose and mix": _ms(choose_ms + mix_ms), "distance of maps": f"{choice.distance:.3f}"}
            facts |= {"kept of the image": _share(pair.kept)}
            if self.given.refiner is not None:
                result, refine_ms = _timed(lambda: self._refined(pair, item, row, choices))
                panels |= {"refined": photograph(result)}
                facts |= {"refine": _ms(refine_ms)}
        return Look(
            key=item.key,
            target=None if target is None else target.key,
            candidates=tuple(one.key for one in items[1:]),
            unmixed=None if choice.unmixed is None else WHY[choice.unmixed],
            panels=panels,
            facts=facts,
            result=result,
            python=python_lines(self.given, choices),
            command=command_line(self.given, choices),
        )

    def _described(self, item: Item, settings: Settings) -> tuple[int, list[Item], list[Entry]]:
        """The image's place among those that can be used; it and its candidates, and what is known of each.

        An image that turns out to be unusable is left out, and the candidates are drawn again, as a run would have.
        """
        while True:
            usable = self.album.rows(settings)
            row = int(np.searchsorted(usable, self.album.row_of[item.key]))
            drawn = draw_candidate_rows(np.array([row]), len(usable), settings.candidates, seed=settings.seed)[0]
            # In the set's order: of equally near ones the first is chosen.
            items = [item, *(self.album.source.items[usable[other]] for other in np.sort(drawn))]
            found = self.album.entries(items, settings)
            if item.key not in found:
                raise DataError(f"{item.key}: {self.album.unusable(settings)[item.key]}")
            if len(found) == len(items):
                return row, items, [found[one.key] for one in items]

    def _map(self, item: Item, settings: Settings) -> Tensor:
        loaded = self.album.pixels(item)
        return self.album.maps(settings.backend)(loaded.pixels[None], torch.tensor([item.label]), [loaded.sha256])[0]

    def _refined(self, pair: Pair, item: Item, row: int, choices: Choices) -> Tensor:
        seeds, _ = seeds_and_chances(np.array([row]), choices.seed)
        refined = self._refiner.refine(
            pair.pixels[None],
            classes=[item.class_name],
            strength=choices.strength,
            seeds=seeds.tolist(),
            masks=pair.kept[None],
            holes=pair.hole[None],
            preserve=choices.preserve,
        )
        return refined.images[0]


def _choose(items: list[Item], entries: list[Entry], settings: Settings) -> Choice:
    """The first image's target among the others, as a run chooses it."""
    finder, candidates = Finder(descriptors_of(items, entries), settings), np.arange(1, len(items))[None]
    found = finder.nearest(np.array([0]), candidates, np.array([True]), np.empty((1, 0), np.int64))
    return finder.choice(0, found, 0, True)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and the milliseconds that it took."""
    began = time.perf_counter()
    return work(), 1000 * (time.perf_counter() - began)


def _ms(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.1f} ms"


def _share(mask: Tensor) -> str:
    return f"{float(mask.float().mean()):.0%}"
