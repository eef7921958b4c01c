"""Refiners and base models that anyone may have made: none of their code is run, and one line says what is wrong."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from .bench import Bench
from .command import Command, warm_up
from .spoil import WAYS, spoil
from .tally import Tally

__all__ = ["attack"]

_LIMIT = 120.0  # seconds
_USED = (
    *("sgdmix_albu.refine.loading", "sgdmix_albu.refine.refiner", "sgdmix_albu.refine.work"),
    *("diffusers.models", "diffusers.pipelines.stable_diffusion", "diffusers.schedulers"),
    *("peft", "transformers.models.clip.modeling_clip", "transformers.models.clip.tokenization_clip"),
)


def attack(number: int, chance: Random, bench: Bench, tally: Tally) -> None:
    """A refiner and its base with something hostile in one of them."""
    warm_up(*_USED)
    work, trace = bench.folder(), bench.root / "trace"
    refiner = Path(shutil.copytree(bench.refiner, work / "refiner"))
    base = Path(shutil.copytree(bench.refiner.with_name("base"), work / "base"))
    kind = chance.choice(list(_KINDS))
    tally.count(f"refiners: {kind}")
    tally.where += f" ({kind})"
    told = _KINDS[kind](refiner, base, trace, chance)
    tally.where += f" ({told})" if told else ""
    words = "--device cpu --workers 1 --multiplier 1 --limit 3 --strengths 0.3 --saliency spectral_residual --mask otsu"
    places = ("generate", str(bench.data), str(work / "out"), "--refiner", str(refiner), "--base", str(base))
    command = Command((*places, *words.split()))
    tally.judge(command.run(bench.notes, _LIMIT), {0, 2})
    if trace.exists():
        trace.unlink()
        tally.fault("trace", command)
    bench.forget(work)


class _Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.write_text, (self.trace, "unpickled")


def _trap_module(folder: Path, trace: Path) -> None:
    code = f"import pathlib\npathlib.Path({str(trace)!r}).write_text('imported')\nclass Trap: pass\n"
    (folder / "trap.py").write_text(code)


def _change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def _custom_part(refiner: Path, base: Path, trace: Path, chance: Random) -> str:
    part = chance.choice(["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
    _change(base / "model_index.json", **{part: ["trap", "Trap"]})
    for folder in (base, base / part):
        _trap_module(folder, trace)
    return part


def _custom_pipeline(refiner: Path, base: Path, trace: Path, chance: Random) -> str:
    _change(base / "model_index.json", _class_name=chance.choice([["trap", "Trap"], "trap.Trap", "Trap"]))
    _trap_module(base, trace)
    return ""


def _auto_map(refiner: Path, base: Path, trace: Path, chance: Random) -> str:
    file = chance.choice(sorted(base.glob("*/*config.json")))
    kinds = ("AutoConfig", "AutoModel", "AutoTokenizer", "CLIPTextModel")
    _change(file, auto_map=dict.fromkeys(kinds, "trap.Trap"), _class_name="trap.Trap", tokenizer_class="trap.Trap")
    for folder in (base, file.parent):
        _trap_module(folder, trace)
    return file.relative_to(base).as_posix()


def _pickled(refiner: Path, base: Path, trace: Path, chance: Random) -> str:
    file = chance.choice(sorted([*base.rglob("*.safetensors"), *refiner.glob("*.safetensors")]))
    content = pickle.dumps(_Trap(trace))
    if chance.random() < 0.5:
        file.write_bytes(content)  # under its old name
    else:
        file.unlink()
        for name in (f"{file.stem}.bin", "pytorch_model.bin", f"{file.stem}.ckpt"):
            (file.parent / name).write_bytes(content)
    return file.name


def _header(refiner: Path, base: Path, trace: Path, chance: Random) -> str:
    """A tensor file whose header lies."""
    file = chance.choice(sorted([*base.rglob("*.safetensors"), *refiner.glob("*.safetensors")]))
    about: dict[str, Any] = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    about |= chance.choice(
        [
            {"shape": [2**40, 2**40]},
            {"data_offsets": [0, 2**62]},
            {"data_offsets": [16, 0]},
            {"shape": [-1]},
            {"dtype": "F999"},
            {"shape": "x"},
        ]
    )
    header = chance.choice([json.dumps({"a": about}), "[" * 100_000, json.dumps({"\x1b[2J\n": about}), "{"]).encode()
    length = chance.choice([len(header), 2**63, 2**32, 0])
    file.write_bytes(struct.pack("<Q", length) + header + b"\0" * 16)
    return file.name


def _prompt(refiner: Path, base: Path, trace: Path, chance: Random) -> str:
    prompt = chance.choice(["{token.__class__.__mro__}", "{token:>999999999}", "{", "{0}", "{x}", "\x1b[2J{token}", ""])
    _change(refiner / "refiner.json", prompt=prompt)
    return repr(prompt)


def _base_elsewhere(refiner: Path, base: Path, trace: Path, chance: Random) -> str:
    named = chance.choice(["../../..", "/etc", "a/b", "embedded:x", "https://127.0.0.1:9/x", "\x1b[2J", "x" * 5000])
    _change(refiner / "refiner.json", base=named)
    return f"{named!r:.50}"


def _spoilt(refiner: Path, base: Path, trace: Path, chance: Random) -> str:
    files = sorted(path for folder in (refiner, base) for path in folder.rglob("*") if path.is_file())
    file, way = chance.choice(files), chance.choice(list(WAYS))
    spoil(file, way, chance)
    return f"{way}: {file.relative_to(refiner.parent)}"


_KINDS: dict[str, Callable[[Path, Path, Path, Random], str]] = {
    "a part of its own": _custom_part,
    "a pipeline of its own": _custom_pipeline,
    "auto_map": _auto_map,
    "a pickle": _pickled,
    "a header that lies": _header,
    "a prompt": _prompt,
    "a base elsewhere": _base_elsewhere,
    "a spoilt file": _spoilt,
}
