"""Writing the bank of a run: images are described in stretches, by many at once, and stored in parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import NamedTuple

from torch import Tensor

from sgdmix_albu.bank.describe import HOPELESS, Maps, described, read_pixels
from sgdmix_albu.bank.map_source import open_saliency
from sgdmix_albu.bank.parts import Entry, Part, Parts, Stretch, first_of, stretches_of
from sgdmix_albu.bank.reference import open_reference
from sgdmix_albu.bank.ways import way_of
from sgdmix_albu.datasets.source import Item, Reader, Skipped
from sgdmix_albu.errors import DataError, SGDMixError
from sgdmix_albu.io.attempts import begin_attempt
from sgdmix_albu.io.copies import Copies, Lent, gpus
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.io.threads import one_thread_each, ordered_map
from sgdmix_albu.mixing.masks import get_mask
from sgdmix_albu.settings import Settings

_READERS = 8  # threads that read a stretch from another machine, which answers each one late
_BEGUN = "begun"  # folder of stretches whose parts were not finished
_ON_A_GPU = 2  # copies of a network on each: one is given images while the other computes


class Described(NamedTuple):
    """How many images were described, and the seconds that took."""

    images: int
    seconds: float


class Finding(NamedTuple):
    """What is known of a stretch's images.

    Attributes:
        stretch: The stretch.
        entries: What is kept of those that can be used.
        skipped: The others, and why.
        seconds: That it took.
        refused: How many were read, and refused by what was to describe them.
        refusal: The first of these errors.
    """

    stretch: Stretch
    entries: list[Entry]
    skipped: list[Skipped]
    seconds: float
    refused: int = 0
    refusal: SGDMixError | None = None

    @property
    def images(self) -> int:
        """All images of the stretch."""
        return len(self.stretch.images)


class Describer:
    """Describes stretches; several threads may share one.

    Args:
        reader: Reads the images.
        class_names: Label index to name.
        settings: What gives maps and masks, and whom they are compared with.
        device: Where networks look; None for the GPUs if there are any.
        jobs: Threads that share it.
    """

    def __init__(
        self, reader: Reader, class_names: Sequence[str], settings: Settings, device: str | None = None, jobs: int = 1
    ) -> None:
        self.reader, self.size, self._preset = reader, settings.size, get_mask(settings.mask)
        self._readers = _READERS if isinstance(reader, Storage) and not reader.local else 1
        saliency = settings.backend
        maps = partial(open_saliency, saliency, class_names, device)
        self._maps: Maps = _Shared(maps, saliency.saliency, jobs, device)
        judge = settings.reference
        opened = partial(_reference, judge or "", class_names)
        self._reference: Maps | None = None if judge is None else _Shared(opened, judge, jobs, device)

    def __call__(self, stretch: Stretch) -> Finding:
        """Read and describe the stretch's images.

        Raises:
            SGDMixError: A fault of the settings: the first images of a part are all refused.
        """
        began, skipped, refused = time.perf_counter(), list[Skipped](), list[SGDMixError]()
        listed = [Item(key, name, label, self.reader, digest) for key, name, label, digest in stretch.images]
        reading = ordered_map(lambda item: read_pixels(item, self.size), listed, self._readers)
        # Later in a part, others may have been described before: whoever gathers them knows.
        hopeless = HOPELESS if stretch.first == 0 else len(listed) + 1
        give = partial(described, reference=self._reference, hopeless=hopeless, refused=refused)
        entries = list(give(reading, self._maps, self._preset, skipped))
        first = refused[0] if refused and not entries else None
        return Finding(stretch, entries, skipped, time.perf_counter() - began, len(refused), first)


class Gathering:
    """Writes the parts of a bank, each when all its stretches have been described, in any order.

    Args:
        storage: The bank's folder.
        parts: What is to be written.
    """

    def __init__(self, storage: Storage, parts: Sequence[Part]) -> None:
        self._parts, self._begun = Parts(storage, "", masks=True), Parts(storage.below(_BEGUN), "", masks=True)
        self._whole = {part.number: part for part in parts}
        self._found: dict[int, list[Finding]] = {}
        self._kept = set(self._begun.numbers())

    def stretches(self) -> list[Stretch]:
        """The work to do: not what is kept of begun parts, which is taken up."""
        left = []
        for stretch in (one for part in self._whole.values() for one in stretches_of(part)):
            number = _number(stretch)
            if number in self._kept:
                with suppress(DataError):  # it is described again
                    entries = self._begun.entries(number, [key for key, *_ in stretch.images])
                    self.add(Finding(stretch, entries, self._begun.read(number).skipped, 0.0))
                    continue
            left.append(stretch)
        return left

    def keep(self) -> None:
        """What is known of unfinished parts, for the next time; refusals alone may be the settings' fault."""
        for one in (one for found in self._found.values() for one in found if one.entries):
            place_of = {key: place for place, (key, *_) in enumerate(one.stretch.images)}
            places = [place_of[entry.key] for entry in one.entries]
            self._begun.write(_number(one.stretch), one.entries, places, one.skipped)

    def add(self, finding: Finding) -> Described:
        """Take what one stretch gave.

        Raises:
            SGDMixError: A fault of the settings: of a part's images, from the first on, only refusals have come.
        """
        number = finding.stretch.number
        found = self._found.setdefault(number, [])
        found.append(finding)
        found.sort(key=lambda one: one.stretch.first)
        _check_hope(found)
        if sum(one.images for one in found) == len(self._whole[number].images):
            self._write(self._whole[number], found)
            for place in self._kept.intersection(_number(one.stretch) for one in self._found.pop(number)):
                self._begun.remove(place)
        return Described(finding.images, finding.seconds)

    def _write(self, part: Part, found: Sequence[Finding]) -> None:
        place_of = {key: place for place, (key, *_) in enumerate(part.images)}
        entries = [entry for one in found for entry in one.entries]
        skipped = [skipped for one in found for skipped in one.skipped]
        self._parts.write(part.number, entries, [place_of[entry.key] for entry in entries], skipped)


def _number(stretch: Stretch) -> int:
    """What a stretch is called where it is kept: its first image's place in the listing."""
    return first_of(stretch.number) + stretch.first


def _check_hope(found: Sequence[Finding]) -> None:
    """Refuse to go on where the settings are at fault; what is found without the stretches before it says nothing."""
    reached, refused = 0, 0
    for one in found:
        if one.entries or one.stretch.first != reached:
            return
        reached, refused = reached + one.images, refused + one.refused
        if refused >= HOPELESS:
            raise next(each.refusal for each in found if each.refusal is not None)


class BankBuilder:
    """Describes a part and writes it; any process may, in any order.

    Args:
        storage: The bank's folder.
        reader: As in :class:`Describer`, and the next three.
        class_names: Label index to name.
        settings: What gives maps and masks.
        device: Where networks look.
        tries: Where to note what is begun, if the engine repeats what a lost worker had.
    """

    def __init__(
        self,
        storage: Storage,
        reader: Reader,
        class_names: Sequence[str],
        settings: Settings,
        device: str | None,
        tries: Storage | None,
    ) -> None:
        self.storage, self.tries, self._describer = storage, tries, Describer(reader, class_names, settings, device)

    def __call__(self, part: Part) -> Described:
        """Describe the part's images."""
        if self.tries is not None:
            begin_attempt(self.tries, f"bank part {part.number}")
        gathering = Gathering(self.storage, [part])
        with one_thread_each():
            done = [gathering.add(self._describer(stretch)) for stretch in gathering.stretches()]
        return Described(len(part.images), sum(one.seconds for one in done))


class _Shared:
    """A source of maps, or of a reference's masks, that several threads may ask at once.

    Args:
        make: Opens one.
        name: Of its backend.
        jobs: How many may ask.
        device: Where a network looks; None for the GPUs if there are any.
    """

    def __init__(self, make: Callable[[], Maps], name: str, jobs: int, device: str | None = None) -> None:
        devices = gpus(device, exact=True) if way_of(name).network else []
        if devices:
            self._copies = Copies[Maps](make, min(jobs, _ON_A_GPU * len(devices)), devices)
        else:
            self._copies = Copies[Maps](make, jobs)
        with self._copies.one():  # what cannot be opened is said before the work begins
            pass

    def __call__(self, images: Tensor, labels: Tensor, digests: Sequence[bytes]) -> Tensor:
        """As one's; on the CPU."""
        lending: AbstractContextManager[Lent[Maps]] = self._copies.one()
        with lending as lent:
            return lent.thing(images.to(lent.device), labels, digests).cpu()


def _reference(name: str, class_names: Sequence[str]) -> Maps:
    return open_reference(name, class_names)[0]
