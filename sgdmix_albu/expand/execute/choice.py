"""Which engine: how many workers of which kind, and which of them has which GPU."""

from __future__ import annotations

from sgdmix_albu.arguments import check_choice
from sgdmix_albu.bank.ways import way_of
from sgdmix_albu.devices import present_device
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.expand.asked import Asked
from sgdmix_albu.expand.execute.guard import check_guarded
from sgdmix_albu.expand.execute.local import Engine, LocalEngine
from sgdmix_albu.io.copies import gpus
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.io.threads import default_jobs
from sgdmix_albu.settings import RefinerSettings, Settings

_TO_A_GPU = 3  # workers that share a model: one refines, others mix and write


def check_engine(kind: str, address: str | None, gpus: float | None, refiner: RefinerSettings | None) -> None:
    """Refuse an engine that means nothing, and a device that this machine does not have where it is to work.

    Raises:
        InvalidInputError: What was expected, and what came.
    """
    check_choice("engine", kind, ("local", "ray"))
    if kind == "local" and (address is not None or gpus is not None):
        name = "address" if address is not None else "gpus_per_worker"
        raise InvalidInputError(f"{name} needs engine='ray'")
    if gpus is not None and not gpus >= 0:
        raise InvalidInputError(f"gpus_per_worker must be 0 or more, got {gpus!r}")
    if kind == "local" and refiner is not None:
        present_device(refiner.device)


def expanding_engine(
    kind: str, asked: Asked, progress: Progress, *, workers: int | None, share: float | None, address: str | None
) -> Engine:
    """Who executes the plan.

    Args:
        kind: "local" or "ray".
        asked: What is asked for.
        progress: Is told of an interruption.
        workers: How many at once; None for what the machine has.
        share: Of a GPU, for each of Ray's workers.
        address: Of a Ray cluster.
    """
    refines = asked.refiner is not None and asked.refiner.device != "cpu"
    if kind == "ray":
        from sgdmix_albu.expand.execute.ray import RayEngine

        # None: a GPU each, where the cluster has any; this machine need not have one.
        return RayEngine(workers, gpus=share if refines or share is not None else 0, address=address, progress=progress)
    there = _for(asked.refiner)
    if there:
        workers = workers or _TO_A_GPU * there
        return LocalEngine(workers, "threads" if there == 1 else "processes", progress, gpus=there)
    return LocalEngine(workers or default_jobs(), "threads" if asked.refiner is None else "processes", progress)


def check_script(engine: Engine, asked: Asked, workers: int | None) -> None:
    """Refuse a script that would begin the run again in each of its processes.

    Raises:
        InvalidInputError: It has no guard.
    """
    if isinstance(engine, LocalEngine):
        describing = describing_engine(engine, asked.settings, Progress(), workers, asked.device)
        if engine.spawns or (isinstance(describing, LocalEngine) and describing.spawns):
            check_guarded()


def describing_engine(
    engine: Engine, settings: Settings, progress: Progress, workers: int | None, device: str | None
) -> Engine:
    """Who makes saliency and masks, where ``engine`` executes the plan.

    Args:
        engine: That one.
        settings: Which backend looks at the images, and which at the masks.
        progress: Is told of an interruption.
        workers: How many at once; None for one a core.
        device: Where networks look; None for a GPU if there is one.
    """
    ways = [way_of(name) for name in (settings.backend.saliency, settings.reference) if name is not None]
    network = any(way.network for way in ways)
    if not isinstance(engine, LocalEngine):
        return engine if network else engine.on_cpus()
    jobs, kinds = workers or default_jobs(), {way.by for way in ways}
    if "one" in kinds:
        return LocalEngine(1, progress=progress)
    if "processes" not in kinds:
        return LocalEngine(jobs, progress=progress)
    there = len(gpus(device, exact=True))
    # A process that has a GPU to itself knows it by another number than the one that was named.
    own = there if device in (None, "cuda") else 0
    return LocalEngine(min(jobs, _TO_A_GPU * there) if there else jobs, "processes", progress, gpus=own)


def _for(refiner: RefinerSettings | None) -> int:
    """How many GPUs of this machine a refiner may use: all, or the one that is named."""
    return 0 if refiner is None else len(gpus(refiner.device))
