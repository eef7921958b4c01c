"""``sgdmix audit`` and ``drift``, reports to look at before training; and ``demo``."""

from __future__ import annotations

from typing import Any

from sgdmix_albu.cli.grammar import Commands, add_classifier, add_data, add_seed, add_settings, command, options_of
from sgdmix_albu.cli.said import Said
from sgdmix_albu.parsing import count, real
from sgdmix_albu.printable import skipped_lines
from sgdmix_albu.settings import ClassifierSettings, MixSettings, SaliencySettings, Settings
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY


def add_demo(commands: Commands) -> None:
    """``sgdmix demo``."""

    def run(**arguments: Any) -> Said:
        from sgdmix_albu.demo import run_demo

        pages = [str(page) for page in run_demo(**arguments).pages]
        return Said(["Look at:", *(f"  {page}" for page in pages)], {"pages": pages})

    demo = command(commands, "demo", run, "run the whole method on the embedded birds, and print where to look")
    demo.add_argument("out", nargs="?", default="demo-output", metavar="OUT", help="folder for the results")


def add_audit(commands: Commands) -> None:
    """``sgdmix audit``."""

    def run(*, options: list[str], **arguments: Any) -> Said:
        from sgdmix_albu.audit import run_audit

        result = run_audit(saliency_options=options_of(options), **arguments)
        lines = [*skipped_lines(result.skipped, "audit.json"), *result.lines()]
        return Said(lines, result.summary(), 1 if result.skipped else 0)

    audit = command(
        commands, "audit", run, "report what saliency and masks do on your images, and whether to trust them"
    )
    add_data(audit, "folder of the report")
    audit.add_argument(
        "--saliency",
        nargs="+",
        default=[BEST_SALIENCY],
        metavar="NAME",
        help=f"backends to compare (default: {BEST_SALIENCY})",
    )
    add_settings(audit, SaliencySettings, only="options")
    audit.add_argument(
        "--mask", nargs="+", default=[BEST_MASK], metavar="NAME", help=f"mask presets to compare (default: {BEST_MASK})"
    )
    add_settings(audit, MixSettings, only="fill place candidates target_class max_coverage feather")
    audit.add_argument("--size", type=count, default=224, metavar="N", help="resize all images to N x N pixels")
    audit.add_argument("--masks", metavar="DIR", help="folder of true foreground masks, for coverage and leak")
    audit.add_argument(
        "--agreement",
        dest="agreement_with",
        metavar="NAME",
        help=f"a better backend to compare masks with, or none (default: {BEST_SALIENCY}, for those worse than it)",
    )
    audit.add_argument("--samples", type=count, default=10, metavar="N", help="samples to show")
    audit.add_argument("--pairs", type=count, default=200, metavar="N", help="pairs to measure")
    audit.add_argument("--overwrite", action="store_true", help="replace the earlier audit in OUT")
    add_seed(audit, "the same seed draws the same samples")
    add_classifier(audit)


def add_drift(commands: Commands) -> None:
    """``sgdmix drift``."""

    def run(*, options: list[str], **arguments: Any) -> Said:
        from sgdmix_albu.audit import run_drift

        teacher = {name: arguments.pop(f"teacher_{name}") for name in ("arch", "class_names", "normalize")}
        result = run_drift(saliency_options=options_of(options), **teacher, **arguments)
        lines = [*skipped_lines(result.skipped, "drift.json"), result.table(), f"answer   {result.answer}"]
        lines += [f"doubt    {result.caveat}"] if result.caveat else []
        return Said([*lines, f"report   {result.report}"], result.summary(), 1 if result.skipped else 0)

    drift = command(commands, "drift", run, "measure how often a refiner changes the class, for each strength")
    add_data(drift, "folder of the report")
    drift.add_argument(
        "--refiner", required=True, metavar="KEY_OR_DIR", help="a key (see: sgdmix refiners) or a folder"
    )
    drift.add_argument(
        "--strengths",
        type=real(0, 1, open_low=True),
        nargs="+",
        default=[0.1, 0.3, 0.5, 0.7, 0.9, 1.0],
        metavar="S",
        help="translation strengths to measure (default: 0.1 0.3 0.5 0.7 0.9 1.0)",
    )
    drift.add_argument(
        "--preserve",
        nargs="+",
        choices=("none", "soft", "strict"),
        default=["none", "soft", "strict"],
        help="protections to compare (default: all)",
    )
    drift.add_argument("--sources", type=count, default=96, metavar="N", help="images to measure")
    add_settings(drift, SaliencySettings, only="saliency options")
    add_settings(drift, Settings, only="mask fill place")
    add_seed(drift, "the same seed gives the same sources, mixes and noise")
    drift.add_argument("--overwrite", action="store_true", help="replace the earlier sweep in OUT")
    teacher = drift.add_argument_group(
        "teacher: the classifier that judges the outputs (default: a small one is trained)"
    )
    teacher.add_argument("--teacher", metavar="FILE", help="its weights")
    add_settings(teacher, ClassifierSettings, prefix="teacher_", without="model")
