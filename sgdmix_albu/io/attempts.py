"""How often a piece of work was begun, for engines that repeat what a lost worker had.

A worker may be lost with its machine, or die of the piece itself: of a file that a decoder crashes on, of memory that
it does not have. Ray repeats either for ever, so the second must end by itself.
"""

from __future__ import annotations

from sgdmix_albu.errors import SGDMixError
from sgdmix_albu.io.storage import Storage

_MOST = 5


def begin_attempt(storage: Storage, name: str) -> None:
    """Write down that a piece of work is begun once more.

    Args:
        storage: Where it is written down.
        name: Of the piece.

    Raises:
        SGDMixError: It was begun too often, and never finished.
    """
    begun = len(storage.read(name)) if storage.has(name) else 0
    if begun == _MOST:
        raise SGDMixError(
            f"{name} was started {_MOST} times, and its worker died each time (killed, or out of "
            "memory); use fewer workers, and run the same command to resume"
        )
    storage.write(name, b"." * (begun + 1))
