"""Seconds and peak memory of giving a finished run again, to which there is nothing left to do.

The run is made up here: its plan, its manifest and its files are as `sgdmix generate` writes them, but the images are a
few bytes each. One process makes it and another, which is measured, is given the same command.

python benchmarks/finished_run.py [--images 200000] [--multiplier 5] [--shards]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sgdmix_albu.datasets.source import open_source
from sgdmix_albu.expand import Settings, generate
from sgdmix_albu.expand.asked import Asked
from sgdmix_albu.expand.plan.rows import Row, batched
from sgdmix_albu.expand.store.done import done_bytes
from sgdmix_albu.expand.store.run import Run
from sgdmix_albu.expand.store.shards import shard_bytes, shard_name
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.storage import Storage

PER_CLASS = 200
IMAGE, SUM = b"no image\n", hashlib.sha256(b"no image\n").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--multiplier", type=int, default=5)
    parser.add_argument("--shards", action="store_true")
    parser.add_argument("--again", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    settings = Settings(multiplier=arguments.multiplier, shards=arguments.shards)
    if arguments.again is not None:
        again(arguments.again, settings)
        return
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        make(Path(folder), arguments.images, settings)
        print(f"made in {time.perf_counter() - began:.1f} s", flush=True)
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--again", folder], check=True)


def make(folder: Path, images: int, settings: Settings) -> None:
    """A folder of images, and one of what was made of them."""
    for place in range(images):
        path = key_path(folder / "data", place)
        if place % PER_CLASS == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(IMAGE)
    source = open_source(folder / "data")
    out = Storage(folder / "out")
    asked = Asked.of(source, folder / "data", None, None, settings, None, None)
    run = Run(out, asked.everything(), source.class_names, source.items)
    run.begin(overwrite=False)
    run.plan(planned(source.items, settings), Counter(), [], lambda place: SUM)
    chunks = run.chunks(settings.chunk)
    for chunk, rows in zip(chunks, batched(planned(source.items, settings), settings.chunk), strict=True):
        written = [manifest_row(row, asked) for row in rows]
        if settings.shards:
            written = [{**row, "shard": shard_name(chunk.number)} for row in written]
            shard = shard_bytes((row, IMAGE) for row in written)
            Path(out.path(shard_name(chunk.number))).write_bytes(shard)
            written = [{**row, "shard_bytes": len(shard)} for row in written]
        else:
            for row in written:  # not Storage.write, which waits for the disk
                path = Path(out.path(row["file_name"]))
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(IMAGE)
        note = Path(out.path(f".sgdmix/done/{chunk.number:06d}.jsonl"))
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_bytes(done_bytes(written))
    run.finish(chunks)


def key_path(root: Path, place: int) -> Path:
    return root / f"class {place // PER_CLASS:05d}" / f"{place:08d}.jpg"


def planned(items: Any, settings: Settings) -> Iterator[Row]:
    for place, item in enumerate(items):
        target = items[place - 1]
        for repeat in range(settings.multiplier):
            yield Row(
                f"{item.key[:-4]}-{repeat:02d}.png", item.class_name, item.label, item.key, target.key,
                target.class_name, place, (place - 1) % len(items), 0.25, 1234567890123 + place, None, None, refused=0,
            )  # fmt: skip


def manifest_row(row: Row, asked: Asked) -> dict[str, Any]:
    about = {f"{role}_{fact}": 0.123456789 for role in ("source", "target") for fact in ("coverage", "threshold")}
    return {
        "file_name": row.name, "label": row.label, "label_index": row.label_index, "mixed": True,
        "unmixed_because": None, "source": row.source, "target": row.target, "target_label": row.target_label,
        "distance": row.distance, "seed": row.seed, **about, "source_sha256": SUM, "target_sha256": SUM,
        **asked.noted, "bytes": len(IMAGE), "sha256": SUM, "versions": {"sgdmix_albu": "0", "torch": "0"},
    }  # fmt: skip


def again(folder: Path, settings: Settings) -> None:
    """What is measured: reading caches are warm, for the files have just been written."""
    before = peak()
    began, spent = time.perf_counter(), time.process_time()
    done = generate(folder / "data", folder / "out", settings=settings, progress=Progress(quiet=True))
    seconds, spent = time.perf_counter() - began, time.process_time() - spent
    assert done.written == 0
    form = "shards" if settings.shards else "files"
    manifest = os.path.getsize(folder / "out" / "metadata.jsonl")  # noqa: PTH202
    print(
        f"a finished run of {done.planned} outputs as {form}, given again: {seconds:.1f} s ({spent:.1f} s of a core); "
        f"peak memory {peak():.0f} MB ({before:.0f} MB before); manifest {manifest / 1e6:.0f} MB"
    )


def peak() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
