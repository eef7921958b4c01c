"""Files of a finished or an interrupted run are spoilt: the run ends with the right bytes, or says which file it is."""

from __future__ import annotations

from pathlib import Path
from random import Random

from .bench import TASKS, Bench, Task
from .command import Command, Ended
from .spoil import WAYS, spoil
from .tally import Tally, differences

__all__ = ["attack"]

_TASKS = [task for task in TASKS if not task.workers]
_LIMIT = 60.0  # seconds
_OFTEN = {"a bit": 3, "another value": 4, "another file": 2}  # of these there are many kinds


def attack(number: int, chance: Random, bench: Bench, tally: Tally) -> None:
    """Spoil one file, or two; then verify, give the same command, verify, and start over."""
    task = chance.choice(_TASKS)
    right, _ = bench.undisturbed(task)
    finished = chance.random() < 0.5
    out = bench.copy(right if finished else bench.interrupted(task))
    names = []  # of the spoilt files; of one that is gone nobody can know, and a bank is named as a whole
    for _ in range(chance.choice([1, 1, 1, 2])):
        spoilt = _chosen(out, chance)
        way = chance.choices(list(WAYS), [_OFTEN.get(way, 1) for way in WAYS])[0]
        names += [spoilt.name, *([str(out)] if way == "gone" or task.name == "bank" else [])]
        tally.where += f" ({way}: {spoilt.relative_to(out)} of {task.name}, {'finished' if finished else 'unfinished'})"
        tally.count(f"damage: {way}")
        spoil(spoilt, way, chance)
    if task.module == "sgdmix_albu":
        _verify(bench, tally, right, out)
    ended = task.command(bench, out).run(bench.notes, _LIMIT)
    tally.judge(ended, {0, 1, 2})
    if ended.code < 2:
        _look_at(task, bench, tally, right, out)
    elif not any(name in ended.err for name in names):
        tally.fault("silent", f"it does not name {' or '.join(names)}: {ended.err}")
    if ended.code == 2 and task.module == "sgdmix_albu":
        anew = task.command(bench, out, "--overwrite").run(bench.notes, _LIMIT)
        tally.judge(anew, {0, 2})
        if anew.code == 0:
            tally.compare(right, out, results_only=True)
        elif "pass --overwrite" in ended.err:
            tally.fault("wrong remedy", f"{ended.err} {anew.err}")
        else:
            tally.count("damage: a file must be removed by hand")
    bench.forget(out)


def _chosen(out: Path, chance: Random) -> Path:
    """Any of the files; a run's own as often as an image, of which there are many more."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and not path.is_symlink())
    images = [path for path in files if path.suffix == ".png"]
    own = [path for path in files if path.suffix != ".png"]
    return chance.choice(images if images and chance.random() < 0.25 else own)


def _verify(bench: Bench, tally: Tally, right: Path, out: Path) -> Ended:
    ended = Command(("verify", str(out))).run(bench.notes, _LIMIT)
    tally.judge(ended, {0, 1, 2})
    if ended.code == 0:
        tally.compare(right, out, results_only=True)
    return ended


def _look_at(task: Task, bench: Bench, tally: Tally, right: Path, out: Path) -> None:
    """A command said that all is done. It looks at files' sizes; verify reads them, and must see what is wrong."""
    wrong = list(differences(right, out, results_only=True))
    if task.name == "bank":
        if wrong and _maps(right) != _maps(out):  # a map that is made again has another row
            tally.fault("differing", "maps")
    elif wrong and _verify(bench, tally, right, out).code:
        tally.count("damage: left to verify")


def _maps(bank: Path) -> dict[str, bytes]:
    """Every map of a finished bank, by its image."""
    from sgdmix_albu.saliency import SaliencyBank  # which takes seconds

    served = SaliencyBank(bank)
    return {key: served[key].numpy().tobytes() for key in served.keys}
