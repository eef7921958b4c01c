"""What a run will take, from a few images that are run for it."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from sgdmix_albu.datasets.source import Source
from sgdmix_albu.expand.execute.local import Engine
from sgdmix_albu.expand.summary import Expansion, Forecast
from sgdmix_albu.io.files import TEMPORARY
from sgdmix_albu.io.storage import Storage

TRIAL = 16  # images that a dry run takes, to see how long they need


def forecast(
    source: Source,
    few: Source,
    multiplier: int,
    engine: Engine,
    trial: Callable[[Storage], Expansion],
    shared: Storage | None,
) -> Forecast:
    """Run a few images of the set somewhere else, and multiply; what starting took is not multiplied.

    Args:
        source: The whole set.
        few: What is tried.
        multiplier: Outputs of each image.
        engine: Who makes the outputs.
        trial: Runs the few.
        shared: The output folder, where workers on other machines could not see a temporary one.
    """
    if shared is None:
        with tempfile.TemporaryDirectory(prefix="sgdmix-") as folder:
            done = trial(Storage(Path(folder) / "out"))
    else:
        place = f"{TEMPORARY}trial-{uuid.uuid4().hex}"
        try:
            done = trial(shared.below(place))
        finally:
            shared.remove(place)
    outputs = len(source.items) * multiplier
    return Forecast(
        sources=len(source.items),
        classes=len({item.class_name for item in source.items}),
        outputs=outputs,
        seconds=_scaled(done, len(source.items) / len(few.items), outputs / max(done.written, 1), engine),
        size=done.size * outputs / max(done.written, 1),
        tried=done.written,
    )


def _scaled(done: Expansion, sources: float, outputs: float, engine: Engine) -> dict[str, float]:
    """The steps' seconds; of what workers do, their time at work is multiplied, and the rest, their start, is not."""
    describing = done.describing / done.describers
    expanding = sum(done.stages.values()) / engine.concurrency()
    seconds = {}
    for step, taken in done.seconds.items():
        if step == "saliency and masks":
            seconds[step] = max(taken - describing, 0) + describing * sources
        elif step.startswith("mixing"):
            seconds[step] = max(taken - expanding, 0) + expanding * outputs
        else:
            seconds[step] = taken * (sources if step == "plan" else outputs)
    return seconds
