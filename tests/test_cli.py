"""The command: light to start, exit codes, one line for each error, and the manual's examples."""

from __future__ import annotations

import inspect
import json
import os
import re
import runpy
import shlex
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from expand_helpers import write_tree
from PIL import Image

from sgdmix_albu import __version__, audit, cli, expand
from sgdmix_albu.audit import run_audit as run_audit_itself
from sgdmix_albu.errors import DataError

HEAVY = {"torch", "torchvision", "numpy", "PIL", "captum", "albumentations", "cv2", "diffusers", "ray", "timm", "tqdm"}

Run = Callable[..., tuple[int, str, str]]


COMPLETED = """
source /dev/stdin
try() { COMP_WORDS=(sgdmix "$@"); COMP_CWORD=$#; COMPREPLY=(); _shtab_sgdmix; echo "${COMPREPLY[*]}"; }
try dist; try mix --sal; try mix a b --saliency spec; try audit a b --mask g
try mix data/tra; try mix a b --model data/m
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command; its exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, *capsys.readouterr()

    return call


def test_the_help_says_each_default_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    said = {command: run(command, "--help")[1] for command in ("mix", "bank", "distil", "drift", "finetune")}
    for text in said.values():
        assert not re.search(r"default: (None|False|==)|default: .*default: ", text)
    for command, option in (
        ("mix", "--candidates N .*50"),
        ("mix", "--max-coverage F .*0.95"),
        ("distil", "--seed N .*0"),
    ):
        assert re.search(rf"^ +{option.replace('.*', '.*[(]default: ')}[)]$", said[command], re.MULTILINE)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["mix", "--help"],
        ["generate", "--help"],
        ["verify", "--help"],
        ["audit", "--help"],
        ["finetune", "--help"],
        ["drift", "--help"],
        ["refiners"],
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom sgdmix_albu.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(("usage: sgdmix", "sgdmix ", "key  "))
    assert {name.partition(".")[0] for name in done.stderr.split()} & HEAVY == set()


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sgdmix_albu", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"sgdmix {__version__}\n"


def test_bash_completes_commands_options_names_and_files(run: Run, tmp_path: Path) -> None:
    code, script, error = run("--print-completion", "bash")
    assert (code, error) == (0, "")
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "model.pt").touch()
    done = subprocess.run(
        ["bash", "-c", COMPLETED], cwd=tmp_path, input=script, capture_output=True, text=True, check=True
    )
    expected = ["distil", "--saliency --saliency-option", "spectral_residual", "grabcut guided"]
    assert done.stdout.splitlines() == [*expected, "data/train", "data/model.pt"]
    assert all(run("--print-completion", shell)[0] == 0 for shell in ("zsh", "tcsh"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["mox"], "got 'mox'; did you mean 'mix'"),
        (["mix"], "required: OUT"),
        (["mix", "data"], "expected DATA or --dataset NAME, and OUT; got only data"),
        (["audit", "x"], "expected DATA or --dataset NAME, and OUT; got only x"),
        (["mix", "data", "out", "--candidates", "0"], "--candidates: expected a whole number, 1 or more, got '0'"),
        (["mix", "data", "out", "--seed", "-1"], "expected a whole number, 0 or more, got '-1'"),
        (["mix", "data", "out", "--cand", "3"], "unrecognized arguments: --cand 3; did you mean '--candidates'?"),
        (["mix", "data", "out", "--dataset", "aviary"], "got both: data and aviary"),
        (["mix", "data", "out", "more"], "unrecognized arguments: more"),
        (["audit", "data", "--out", "x"], "the output folder is given without an option: sgdmix audit DATA OUT"),
        (["audit", "a", "--mask", "otsu", "b"], "got only a; put folders before --mask, which takes several words"),
        (["mix", "data", "out", "--agreement", "rembg"], "--agreement rembg does nothing without --min-agreement F"),
        (["mix", "data", "out", "--jobs=2"], "unrecognized arguments: --jobs=2; use --workers"),
        (["drift", "data", "out", "--refiner", "r", "--arch", "x"], "did you mean '--teacher-arch'"),
        (["mix", "data", "out", "--candidates", "fifty"], "expected a whole number, 1 or more, got 'fifty'"),
        (["mix", "data", "out", "--p", "half"], "argument --p: expected a number, got 'half'"),
        (
            ["mix", "data", "out", "--fill", "inpant"],
            "expected one of source, inpaint, got 'inpant'; did you mean 'inpaint'?",
        ),
        (["finetune", "data", "x"], "expected --metaclass WORD, what all classes are (--metaclass insect), or --key"),
        (["finetune", "x", "--key", "cub"], "expected DATA"),
        (["finetune", "data", "x", "--dataset", "cub"], "a refiner's key is --key cub"),
        (["finetune", "data", "--out", "x", "--key", "cub"], "without an option: sgdmix finetune DATA OUT"),
        (["drift", "data", "x"], "required: --refiner"),
        (
            ["drift", "data", "x", "--refiner", "r", "--preserve", "hard"],
            "expected one of none, soft, strict, got 'hard'",
        ),
    ],
)
def test_misuse(run: Run, arguments: list[str], message: str) -> None:
    code, _, err = run(*arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_mix(run: Run, tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data")
    assert run("mix", data, "--seed", 3, tmp_path / "out")[0] == 0
    (data / "class 0" / "empty.png").touch()
    code, out, err = run("mix", data, tmp_path / "out", "--overwrite", "--p", 0)
    assert (code, err) == (1, "")
    assert "mixed    0 of 12 images" in out
    assert "skipped  class 0/empty.png: cannot read" in out
    assert "unmixed  12: not selected by --p" in out


FAST = ["--saliency", "spectral_residual", "--mask", "otsu"]


def test_summaries_for_programs(run: Run, tmp_path: Path) -> None:
    """One object on stdout, whatever the command; with --quiet nothing else at all."""
    data = write_tree(tmp_path / "data")
    (data / "class 0" / "empty.png").touch()

    def told(code: int, *words: object) -> dict[str, Any]:
        found = run(*words, "--json", "--quiet")
        assert (found[0], found[2]) == (code, "")
        return dict(json.loads(found[1]))

    mixed = told(1, "mix", data, tmp_path / "out", *FAST)
    assert (mixed["written"], mixed["mixed"], mixed["out"]) == (12, 12, str(tmp_path / "out"))
    assert [one["key"] for one in mixed["skipped"]] == ["class 0/empty.png"]
    assert mixed["classes"] == ["class 0", "class 1", "class 2"]
    checked = {"images": 12, "right": 12, "wrong": [], "strangers": [], "good": True}
    assert told(0, "verify", tmp_path / "out") == checked
    dry = told(0, "generate", data, tmp_path / "more", "--refiner", "none", "--multiplier", "2", "--dry-run", *FAST)
    assert (dry["outputs"], dry["classes"]) == (26, 3)  # the empty file too: nobody has read it yet
    assert {row["key"]: row["metaclass"] for row in told(0, "refiners")["refiners"]}["pets"] == "pet"
    audited = told(1, "audit", data, tmp_path / "report", "--size", "32", "--agreement", "none", *FAST)
    assert (audited["best"], audited["measured"]) == ("spectral_residual + otsu", 12)
    assert "samples" not in audited["variants"][0]
    assert told(1, "bank", data, tmp_path / "bank", "--size", "32", "--saliency", "spectral_residual")["maps"] == 12
    assert run("verify", tmp_path / "out", "--quiet") == (0, "", "")
    assert run("verify", data, "--json")[:2] == (2, "")


def test_what_was_not_done_is_no_success(run: Run, tmp_path: Path) -> None:
    Image.effect_noise((32, 32), 50).convert("RGB").save(write_tree(tmp_path / "one", classes=1, images=1) / "x.png")
    code, said, error = run("mix", tmp_path / "one", tmp_path / "alone", *FAST)
    assert (code, error.splitlines()[-1]) == (
        2,
        "sgdmix: error: no image was mixed (1 image: no further candidate); mixing takes at least two images",
    )
    code, said, error = run("mix", write_tree(tmp_path / "class", classes=1), tmp_path / "same", *FAST)
    assert (code, error) == (1, "")
    assert "classes  1, class 0: each folder in DATA is a class; is DATA one folder too high?" in said
    flat = tmp_path / "flat"
    for name in ("owl", "tit"):
        (flat / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), "grey").save(flat / name / "1.png")
    assert (
        "(2 images: the saliency map is flat); sgdmix audit shows the maps"
        in run("mix", flat, tmp_path / "f", *FAST)[2]
    )
    assert run("mix", flat, tmp_path / "none", "--p", 0, *FAST)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "out"], "expected a folder of images, none does not exist"),
        (["data", "data/out"], "must lie apart"),
        (["data", "."], "must lie apart"),
        (["data", "full"], "full holds files that sgdmix did not write"),
        (["data", "out", "--p", "2"], "p must be a probability"),
        (["data", "out", "--saliency", "spectral_residuals"], "did you mean 'spectral_residual'?"),
        (["data", "out", "--mask", "otsus"], "did you mean 'otsu'?"),
        (["--dataset", "avairy", "out"], "did you mean 'aviary'?"),
        (["data", "out", "--saliency", "gradcam", "--model", "none.pt", "--arch", "resnet18"], "cannot read none.pt"),
        (["data", "out", "--saliency", "gradcam"], "looks through a classifier: give its weights, --model FILE"),
        (
            ["data", "out", "--model", "net.pt", "--arch", "resnet18"],
            "uses no classifier: drop --model, or add --saliency gradcam",
        ),
        (["data", "out", "--arch", "resnet18"], "--arch resnet18 is about a classifier, and none is given"),
        (["data", "out", "--max-coverage", "0"], "error: --max-coverage must lie in (0, 1], got 0.0"),
        (["data", "out", "--feather", "-1"], "error: --feather must be a width in pixels, 0 or more, got -1.0"),
        (["data", "out", "--place", "random", "--fill", "source"], "--place random needs a background without an"),
        (["data", "out", "--address", "auto"], "error: --address needs --engine ray"),
        (["data", "out", "--size", "9999999"], "error: --size must be a side in pixels, 1 to 8192, got 9999999"),
        (["data", ""], "expected a path, got ''"),
        (["", "out"], "expected a path, got ''"),
        (["splits", "out"], "the folders of splits are splits, not classes: test, train; give one of them"),
    ],
)
def test_errors_are_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    write_tree(tmp_path / "data", classes=1, images=2)
    write_tree(tmp_path / "full", classes=1, images=1)
    for split in ("train", "test"):
        write_tree(tmp_path / "splits" / split, classes=1, images=1)
    monkeypatch.chdir(tmp_path)
    code, out, err = run("mix", *arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"sgdmix: error: .+\n", err)
    assert message in err
    assert not (tmp_path / "out").exists()


def test_an_error_of_several_lines_is_printed_on_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DataError("one\ntwo")

    monkeypatch.setattr(expand, "mix_folder", fail, raising=False)
    assert run("mix", "a", "b") == (2, "", "sgdmix: error: one two\n")


def test_ctrl_c(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(expand, "mix_folder", interrupt, raising=False)
    assert run("mix", "a", "b") == (130, "", "sgdmix: interrupted\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "audit photos report --saliency a b --mask c --samples 3 --pairs 4 --masks truth --seed 5",
            {"data": "photos", "out": "report", "saliency": ["a", "b"], "mask": ["c"], "samples": 3, "pairs": 4}
            | {"masks": "truth", "seed": 5, "dataset": None, "model": None},
        ),
        ("audit --dataset aviary x", {"data": None, "dataset": "aviary"}),
    ],
)
@pytest.mark.parametrize("skipped", [[], [("owl/1.png", "the file is empty")]])
def test_audit(
    run: Run, monkeypatch: pytest.MonkeyPatch, line: str, expected: dict[str, Any], skipped: list[tuple[str, str]]
) -> None:
    given: dict[str, Any] = {}

    def run_audit(data: object, *, out: str, **settings: object) -> SimpleNamespace:
        given.update(settings, data=data, out=out)
        lines = ["verdict  a + c: good", f"report   {Path(out, 'report.html')}"]
        return SimpleNamespace(lines=lambda: lines, summary=lambda: {"best": "a + c"}, skipped=skipped)

    monkeypatch.setattr(audit, "run_audit", run_audit)
    code, out, err = run(*line.split())
    assert (code, err) == (len(skipped), "")
    assert out.splitlines()[-2:] == ["verdict  a + c: good", f"report   {Path(given['out'], 'report.html')}"]
    assert ("skipped  owl/1.png: the file is empty" in out) == bool(skipped)
    assert expected.items() <= given.items()
    assert set(given) <= set(inspect.signature(run_audit_itself).parameters)


def test_refiners(run: Run) -> None:
    code, out, err = run("refiners")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["key", "metaclass", "pixels", "base", "weights"]


def test_finetune_passes_on_what_was_said_and_nothing_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from sgdmix_albu import refine
    from sgdmix_albu.refine.finetuning import finetune as finetune_itself

    given: dict[str, Any] = {}

    def fake(data: Any, **arguments: Any) -> Any:
        given.update(arguments, data=data)
        skipped = [[f"a/{number}.png", "not an image"] for number in range(22)]
        return SimpleNamespace(key=arguments["key"], classes=("a", "b"), training={"skipped": skipped})

    monkeypatch.setattr(refine, "finetune", fake, raising=False)
    line = "finetune photos runs --key cub --base sd15 --steps 5 --unbalanced --mixed-precision no --seed 3"
    code, printed, _ = run(*shlex.split(line))
    assert code == 1
    assert printed.startswith("skipped  a/0.png: not an image\n")
    assert printed.endswith("skipped  2 more, see refiner.json\nrefiner  cub: 2 classes\nfolder   runs\n")
    expected = {"data": "photos", "key": "cub", "base": "sd15", "out": "runs", "steps": 5, "balanced": False, "seed": 3}
    assert expected.items() <= given.items()
    defaults = {name: each.default for name, each in inspect.signature(finetune_itself).parameters.items()}
    assert given.keys() <= defaults.keys()
    said = expected.keys() | {"mixed_precision"}
    assert {name: value for name, value in given.items() if name not in said} == {
        name: defaults[name] for name in given if name not in said
    }
    run("finetune", "--dataset", "aviary", "runs", "--saliency", "spectral_residual")
    assert callable(given["saliency"])
    assert given["data"].classes[0] == "000.common_olive_warbler"


@pytest.mark.parametrize(
    ("line", "data", "key", "metaclass"),
    [
        ("finetune aviary runs --key cub", "aviary", "cub", None),
        ("finetune photos aviary --key cub", "photos", "cub", None),
        ("finetune photos --key=cub --base aviary aviary", "photos", "cub", None),
        ("finetune --dataset=aviary runs", None, "aviary", None),
        ("finetune --dataset=aviary runs --metaclass owl", None, None, "owl"),
        ("finetune tree runs --key aviary", "tree", "aviary", None),
        ("finetune photos runs --metaclass insect", "photos", None, "insect"),
    ],
)
def test_finetune_takes_a_folder_of_any_name(
    run: Run, monkeypatch: pytest.MonkeyPatch, line: str, data: str | None, key: str | None, metaclass: str | None
) -> None:
    from sgdmix_albu import refine

    given: list[Any] = []

    def fake(data: Any, **arguments: Any) -> Any:
        given.extend((data, arguments["key"], arguments["metaclass"]))
        return SimpleNamespace(key="some", classes=("a", "b"), training={"skipped": []})

    monkeypatch.setattr(refine, "finetune", fake, raising=False)
    assert run(*line.split())[0] == 0
    assert given[1:] == [key, metaclass]
    assert given[0] == data if data else given[0].classes[0] == "000.common_olive_warbler"


def test_nobody_reads_any_more(tmp_path: Path) -> None:
    """As ``sgdmix ... | head`` where head has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "sgdmix_albu", "mix", "--dataset", "aviary", str(tmp_path / "out"), "--limit", "4",
         "--size", "32", "--saliency", "spectral_residual", "--mask", "otsu"],
        stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 141
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's file that is always full")
@pytest.mark.parametrize(("to", "code", "said"), [("> /dev/full", 2, "No space left on device"), (">&-", 0, "")])
def test_a_summary_that_cannot_be_printed(to: str, code: int, said: str) -> None:
    line = f"{shlex.quote(sys.executable)} -m sgdmix_albu refiners {to}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == (code == 2)


def test_nothing_written_is_an_error(run: Run, tmp_path: Path) -> None:
    """Flat images have no object, so none of them has an output."""
    for name in ("owl", "tit"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), "grey").save(tmp_path / "data" / name / "1.png")
    made = str(tmp_path / "made")
    arguments = ["--refiner", "none", "--saliency", "spectral_residual", "--mask", "otsu"]
    code, said, error = run("generate", str(tmp_path / "data"), made, *arguments)
    assert code == 2
    assert "left out" in said
    assert error.splitlines()[-1].startswith(f"sgdmix: error: no image was written to {made} (10 images: ")


def test_drift_passes_on_what_was_said_and_nothing_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from sgdmix_albu.audit.drift import run_drift as run_drift_itself

    given: dict[str, Any] = {}

    def fake(**arguments: Any) -> Any:
        given.update(arguments)
        found = {"table": lambda: "table", "answer": "no", "report": "r.html", "summary": dict}
        return SimpleNamespace(**found, caveat="Only 1 image was judged.", skipped=(("a/1.png", "it is empty"),))

    monkeypatch.setattr(audit, "run_drift", fake, raising=False)
    line = "drift photos here --refiner cub --strengths 0.5 0.9 --preserve none --sources 7 --teacher-normalize none"
    printed = "skipped  a/1.png: it is empty\ntable\nanswer   no\ndoubt    Only 1 image was judged.\nreport   r.html\n"
    assert run(*shlex.split(line)) == (1, printed, "")
    said = {"data": "photos", "refiner": "cub", "out": "here", "strengths": [0.5, 0.9], "preserve": ["none"]}
    said |= {"sources": 7, "normalize": "none"}
    assert said.items() <= given.items()
    defaults = {name: each.default for name, each in inspect.signature(run_drift_itself).parameters.items()}
    for name, value in given.items():
        if name not in said:
            assert value == defaults[name], name


def test_demo(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = pytest.importorskip("sgdmix_albu.demo")
    given: dict[str, Any] = {}
    pages = (Path("here/report.html"),)
    monkeypatch.setattr(demo, "run_demo", lambda **arguments: given.update(arguments) or SimpleNamespace(pages=pages))
    assert run("demo", "here") == (0, "Look at:\n  here/report.html\n", "")
    assert given == {"out": "here"}


def test_main_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["sgdmix", "--version"])
    with pytest.raises(SystemExit, match="^0$"):
        runpy.run_module("sgdmix_albu", run_name="__main__")
    assert capsys.readouterr().out == f"sgdmix {__version__}\n"


# The manual's console examples: a line "$ ..." is run, the lines under it are what it prints; "..." stands for
# any rest of a line, alone on its line for any lines, and "[exit code N]" for another exit code than 0.


def examples(page: Path) -> Iterator[tuple[str, str]]:
    """Commands and what they print."""
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, expected = part.partition("\n")
            yield command, expected


def pattern(expected: str) -> str:
    escaped = re.escape(expected)
    return escaped.replace(re.escape("\n...\n"), r"\n(?:.*\n)*").replace(re.escape("..."), ".*")


def test_examples_of_the_manual(run: Run, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "photos")
    found = list(examples(repository / "docs" / "how-to" / "command-line.md"))
    assert len(found) >= 5
    for command, expected in found:
        words = shlex.split(command)
        if words[0] == "sgdmix":
            code, out, err = run(*words[1:])
            printed = out + err + (f"[exit code {code}]\n" if code else "")
        else:
            printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert re.fullmatch(pattern(expected), printed), (command, printed)


def odd_tiff(path: Path, seed: int) -> None:
    """A picture that Pillow reads, and warns of: a tag of it claims two numbers where one is meant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 40), 60 + seed).convert("RGB").save(path)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    tags = range(start + 2, start + 2 + 12 * count, 12)
    (rows_per_strip,) = (tag for tag in tags if struct.unpack_from("<H", content, tag) == (278,))
    struct.pack_into("<I", content, rows_per_strip + 4, 2)
    path.write_bytes(content)


def test_pillows_warnings_of_odd_files_are_not_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """There may be thousands in one file."""
    for number in range(4):
        odd_tiff(tmp_path / "data" / str(number % 2) / f"{number}.tif", number)
    with pytest.warns(UserWarning, match="too many entries"), Image.open(tmp_path / "data" / "0" / "0.tif") as image:
        image.load()
    words = ["mix", str(tmp_path / "data"), str(tmp_path / "out"), "--saliency", "spectral_residual", "--mask", "otsu"]
    assert cli.main(words) == 0
    assert "arning" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "mix photos made --seed 3 --saliency a --saliency-option session=u2net",
        "mix --seed 3 photos --saliency a made --saliency-option session=u2net",
        "mix --seed=3 --saliency a --saliency-option session=u2net photos made",
    ],
)
def test_folders_stand_anywhere(run: Run, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    given: dict[str, Any] = {}

    def fake(data: str | None, out: str, **settings: Any) -> SimpleNamespace:
        given.update(settings, data=data, out=out)
        return SimpleNamespace(to_json=dict, code=0, failure=None)

    monkeypatch.setattr(expand, "mix_folder", fake, raising=False)
    assert run(*line.split())[0] == 0
    assert (given["data"], given["out"], given["seed"]) == ("photos", "made", 3)
    assert given["saliency_options"] == {"session": "u2net"}


@pytest.mark.parametrize("line", ["mix --dataset aviary --out-of-it x", "mix --dataset -- out"])
def test_an_options_name_is_no_value(run: Run, line: str) -> None:
    assert run(*line.split())[0] == 2


def test_a_folder_called_like_an_option(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "-photos")
    assert (
        run("mix", "--limit", 4, "--saliency", "spectral_residual", "--mask", "otsu", "--", "-photos", "-out")[0] == 0
    )
    assert run("verify", "--", "-out")[:2] == (0, "verified 4 of 4 images\n")


def test_what_is_for_a_refiner_is_refused_without_one(run: Run, tmp_path: Path) -> None:
    write_tree(tmp_path / "data")
    for option in (["--steps", 3], ["--lora", "nowhere.safetensors"], ["--device", "cpu"]):
        code, _, error = run("generate", tmp_path / "data", tmp_path / "out", "--refiner", "none", *option)
        assert code == 2
        assert f"error: {option[0]} needs a refiner, and the refiner is 'none'" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "line",
    [
        "mix DATA OUT --size 32",
        "generate DATA OUT --size 32 --refiner none",
        "bank DATA OUT --size 32",
        "audit DATA OUT",
        "drift DATA OUT --refiner R",
        "finetune DATA OUT --metaclass bird",
        "distil DATA OUT --teacher spectral_residual",
    ],
)
def test_skipped_files_are_told_by_the_exit_code(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    from sgdmix_albu import distillation, refine

    skipped = (("owl/1.png", "it is empty"),)
    drift = {"table": str, "answer": "no", "caveat": None, "report": "r", "summary": dict, "skipped": skipped}
    card = {"key": "bird", "classes": (), "training": {"skipped": skipped}}
    report = SimpleNamespace(lines=list, summary=dict, skipped=skipped)
    monkeypatch.setattr(audit, "run_audit", lambda **_: report)
    monkeypatch.setattr(audit, "run_drift", lambda **_: SimpleNamespace(**drift), raising=False)
    monkeypatch.setattr(refine, "finetune", lambda *_, **__: SimpleNamespace(**card), raising=False)
    network = SimpleNamespace(to_json=dict, skipped=skipped)
    monkeypatch.setattr(distillation, "distil", lambda **_: network, raising=False)
    write_tree(tmp_path / "data", classes=2, images=2)
    (tmp_path / "data/class 0/empty.png").touch()
    words = line.replace("DATA", str(tmp_path / "data")).replace("OUT", str(tmp_path / "out")).split()
    fast = ["--saliency", "spectral_residual"] if words[0] in ("mix", "generate", "bank", "audit") else []
    assert run(*words, *fast)[0] == 1
