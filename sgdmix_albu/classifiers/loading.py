"""A classifier from a file of weights, and into one: torchvision's or timm's network of that name which they fit."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from sgdmix_albu.classifiers.weights import Checkpoint, read_checkpoint
from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.io.files import read_regular, write_whole
from sgdmix_albu.mixing.colour import Normalization
from sgdmix_albu.registry import import_optional, nearest_names

_Shapes: TypeAlias = dict[str, tuple[int, ...]]

_MOST_NAMES = 2**24  # bytes of a file of class names
_LARGEST_SIDE = 4096  # pixels of the images that a vision transformer is made for
_PROBE_CLASSES = 1000  # what most published weights have, so that most models are built once


@dataclass(frozen=True)
class Classifier:
    """A classifier ready for use.

    Attributes:
        model: On the CPU.
        arch: The architecture's name.
        num_classes: Number of outputs.
        class_names: Names of the outputs in their order, or None where nothing gives them.
        sha256: Of the weights file, or None where there is none.
        normalization: Mean and deviation that the pixels in [0, 1] were standardised with for it, or None where nothing
            gives them.
    """

    model: nn.Module
    arch: str
    num_classes: int
    class_names: tuple[str, ...] | None
    sha256: str | None
    normalization: Normalization | None = None

    def outputs_for(self, classes: Sequence[str]) -> list[int] | None:
        """The output that stands for each class of a data set.

        By name, where the outputs have names; where they have none and there are as many as classes, in order,
        as for a model trained on torchvision's ImageFolder. Else None: the model does not know these classes.
        """
        names = self.class_names
        if names is None:
            return list(range(self.num_classes)) if self.num_classes == len(classes) else None
        return [names.index(name) for name in classes] if set(classes) <= set(names) else None


def open_classifier(
    path: str | os.PathLike[str], arch: str | None = None, *, class_names: str | os.PathLike[str] | None = None
) -> Classifier:
    """Build a torchvision or timm classifier and fill it with the weights of a file.

    The number of classes is read from the weights. Where both libraries know the name, the one whose parameters
    the weights fit is taken. Weights under other names are taken in their order, with a warning, where each is of the
    shape and kind (weight, bias, running_mean, ...) that is due there, and modules match one to one.

    Args:
        path: A safetensors file, or what ``torch.save`` made of ``model.state_dict()`` or of
            ``{"arch": "resnet18", "class_names": [...], "state_dict": model.state_dict()}``, where also
            ``"pixels": {"mean": [...], "std": [...]}`` may say what it expects of pixels in [0, 1].
        arch: A model name of torchvision or timm; None takes the file's own.
        class_names: A text file with the names of the outputs, one per line; None takes the weights file's own.

    Returns:
        The model in evaluation mode, on the CPU, and what is known of it.

    Raises:
        DataError: The file cannot be read, holds more than tensors, or does not fit the architecture.
        UnknownNameError: Neither library knows the architecture.
        InvalidInputError: Neither ``arch`` nor the file names an architecture.

    Example:
        >>> import tempfile, torchvision
        >>> file = Path(tempfile.mkdtemp()) / "weights.pt"
        >>> torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), file)
        >>> open_classifier(file, "resnet18").model.fc
        Linear(in_features=512, out_features=10, bias=True)
    """
    checkpoint = read_checkpoint(path)
    name = arch or checkpoint.arch
    if name is None:
        raise InvalidInputError(f"{path} does not name its architecture; give one, for example --arch resnet18")
    model, num_classes = _fitting_model(name, checkpoint)
    names = checkpoint.class_names if class_names is None else _read_names(Path(class_names).expanduser())
    if names is not None and len(names) != num_classes:
        raise DataError(f"{class_names or path} names {len(names)} classes, the weights have {num_classes}")
    return Classifier(model.eval(), name, num_classes, names, checkpoint.sha256, checkpoint.normalization)


def new_classifier(
    arch: str, classes: Sequence[str], weights: str | os.PathLike[str] | None = None, *, size: int | None = None
) -> Classifier:
    """A torchvision or timm classifier to train on classes of your own; initial values from torch's generator.

    Args:
        arch: A model name of torchvision or timm.
        classes: Names of the outputs.
        weights: Pretrained weights as :func:`open_classifier` reads them, whatever their number of classes: the last
            layer is replaced by a new one. None for random values throughout.
        size: Side in pixels of the images to come, for torchvision's vision transformers, whose position embeddings
            are interpolated where the weights were trained at another size; None keeps the weights' own, or 224.

    Returns:
        The model in training mode, on the CPU. Where it has pretrained weights, what pixels they expect is the file's
        word, or else timm's for its own networks.

    Raises:
        DataError: The weights cannot be read or do not fit.
        UnknownNameError: Neither library knows the architecture.
        InvalidInputError: The model does not end in a linear layer, or cannot take images of that size.

    Example:
        >>> new_classifier("resnet18", ["owl", "tit"]).model.fc
        Linear(in_features=512, out_features=2, bias=True)
    """
    patch = _patch_of(arch)
    if size is not None and patch is not None and size % patch:
        raise InvalidInputError(f"{arch} takes images whose side is a multiple of {patch} pixels, got {size}")
    if weights is None:
        _, builder = next(_libraries(arch, size))
        return Classifier(_quietly(builder, len(classes)).train(), arch, len(classes), tuple(classes), None)
    trained = open_classifier(weights, arch)
    model = _at_size(trained.model, arch, trained.num_classes, size)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    heads = [name for name, layer in layers.items() if layer.out_features == trained.num_classes]
    if not heads:
        raise InvalidInputError(f"{arch} does not end in a linear layer of {trained.num_classes} outputs")
    head = layers[heads[-1]]
    model.set_submodule(heads[-1], nn.Linear(head.in_features, len(classes), bias=head.bias is not None))
    pixels = trained.normalization or _timm_pixels(model)
    return Classifier(model.train(), arch, len(classes), tuple(classes), trained.sha256, pixels)


def save_classifier(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    arch: str,
    class_names: Sequence[str],
    normalization: Normalization | None = None,
) -> None:
    """Write a classifier so that :func:`open_classifier` needs nothing but the file.

    Args:
        path: The file.
        model: Any of torchvision's or timm's.
        arch: Its name there.
        class_names: Names of its outputs.
        normalization: Mean and deviation that it expects of pixels in [0, 1], one number for each channel; None is
            ImageNet's to all who read it.

    Raises:
        DataError: The operating system refused.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "birds.pt"
        >>> model = new_classifier("resnet18", ["owl", "tit"]).model
        >>> save_classifier(file, model, arch="resnet18", class_names=["owl", "tit"])
        >>> open_classifier(file).class_names
        ('owl', 'tit')
    """
    content: dict[str, object] = {"arch": arch, "class_names": list(class_names), "state_dict": model.state_dict()}
    if normalization is not None:
        content["pixels"] = {"mean": list(normalization[0]), "std": list(normalization[1])}
    write_whole(path, lambda file: torch.save(content, file))


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        lines = read_regular(path, _MOST_NAMES).decode("utf-8-sig").splitlines()
    except (DataError, UnicodeDecodeError) as error:
        reason = str(error).removeprefix(f"cannot read {path}: ")
        raise DataError(f"cannot read the class names {path}: {reason}") from error
    return tuple(line.strip() for line in lines if line.strip())


def _fitting_model(arch: str, checkpoint: Checkpoint) -> tuple[nn.Module, int]:
    """The first library's model of that name which the weights fit, filled, and its number of classes."""
    misfits, renamed = [], {}
    for library, builder in _libraries(arch, _side(arch, _shapes(checkpoint.tensors))):
        model, classes, misfit = _filled(builder, checkpoint.tensors)
        if misfit is None:
            return model, classes
        misfits.append(f"{library}'s {arch}: {misfit}")
        if tensors := _in_order(model, checkpoint.tensors):
            renamed[library] = (builder, tensors)
    for library, (builder, tensors) in renamed.items():  # only where no library has the names
        model, classes, misfit = _filled(builder, tensors)
        if misfit is None:
            warnings.warn(
                f"{checkpoint.path} has other names than {library}'s {arch}: its {len(tensors)} tensors were taken in "
                "their order, each of the shape and kind that is due",
                stacklevel=3,
            )
            return model, classes
    raise DataError(f"the weights in {checkpoint.path} do not fit " + "; nor ".join(misfits))


def _filled(builder: Callable[[int], nn.Module], tensors: Mapping[str, Tensor]) -> tuple[nn.Module, int, str | None]:
    """The model with as many classes as the weights have, that number, and what keeps the weights from fitting."""
    model, classes = _build(builder, _PROBE_CLASSES), _PROBE_CLASSES
    found = _classes(_shapes(model.state_dict()), _shapes(tensors))
    if found not in (None, _PROBE_CLASSES):
        model, classes = _build(builder, found), found
    return model, classes, _fill(model, tensors)


def _in_order(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The weights under the model's names, taken in their order; None where modules or kinds are not those due there.

    Shapes alone would let a bias pass for a weight, or a mean for a variance. In a sorted file, as safetensors writes
    them, biases come first, and nothing fits.
    """
    own = list(model.state_dict())
    if len(own) != len(tensors):
        return None
    modules = set()
    for due, name in zip(own, tensors, strict=True):
        (its_module, _, its_kind), (module, _, kind) = due.rpartition("."), name.rpartition(".")
        if kind != its_kind:
            return None
        modules.add((its_module, module))
    if any(len({pair[side] for pair in modules}) != len(modules) for side in (0, 1)):
        return None
    return dict(zip(own, tensors.values(), strict=True))


def _side(arch: str, wanted: _Shapes) -> int | None:
    """The side in pixels that a file's vision transformer was made for, by the number of its positions."""
    patch, positions = _patch_of(arch), wanted.get("encoder.pos_embedding", ())
    if patch is None or len(positions) != 3:
        return None
    side = math.isqrt(max(positions[1] - 1, 1)) * patch  # the first position is the class token's
    return side if side <= _LARGEST_SIDE else None


def _shapes(tensors: Mapping[str, Tensor]) -> _Shapes:
    return {key: tuple(value.shape) for key, value in tensors.items()}


def _classes(built: _Shapes, wanted: _Shapes) -> int | None:
    """Number of classes in the weights: the size found where the built model has the probe's."""
    matching = [
        key
        for key, shape in built.items()
        if shape[:1] == (_PROBE_CLASSES,) and key in wanted and wanted[key][1:] == shape[1:] and wanted[key]
    ]
    sizes = {wanted[key][0] for key in matching}
    # A bias alone may name more classes than there is memory for; their weights are in the file where a matrix is.
    return sizes.pop() if len(sizes) == 1 and any(len(built[key]) > 1 for key in matching) else None


def _fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> str | None:
    """Load the weights; or say what keeps them from fitting.

    The model is asked, not its names compared: modules know what they were called in older files, torchvision's own
    ResNet-50 and ViT-B/16 among them.
    """
    built = _shapes(model.state_dict())
    other = sorted(key for key in built.keys() & tensors.keys() if built[key] != tuple(tensors[key].shape))
    try:
        fitting = {key: value for key, value in tensors.items() if key not in other}
        absent, extra = model.load_state_dict(fitting, strict=False)
    except RuntimeError as error:  # another shape under an older name
        return str(error).splitlines()[-1].strip()
    missing = set(absent) - set(other)
    said = [
        f"{len(keys)} {what} (such as {min(keys)!r})"
        for keys, what in [(missing, "parameters missing"), (extra, "parameters unknown")]
        if keys
    ]
    if other:
        key = other[0]
        said.append(f"{len(other)} of another shape ({key!r} {built[key]}, the file has {tuple(tensors[key].shape)})")
    return ", ".join(said) or None


def _libraries(arch: str, side: int | None = None) -> Iterator[tuple[str, Callable[[int], nn.Module]]]:
    """Each library that knows the name, and how it builds the model with a number of classes."""
    models = import_optional("torchvision.models")
    known = models.list_models(module=models)
    found = False
    if arch in known:
        found = True
        options = {} if side is None or _patch_of(arch) is None else {"image_size": side}
        yield "torchvision", lambda classes: models.get_model(arch, weights=None, num_classes=classes, **options)
    try:
        timm = import_optional("timm")
    except ImportError:
        timm = None
    if timm is not None and timm.is_model(arch):
        found = True
        yield "timm", lambda classes: timm.create_model(arch, pretrained=False, num_classes=classes)
    if not found:
        where = "torchvision" if timm is None else "torchvision and timm"
        everything = known if timm is None else known + timm.list_models()
        note = "; timm, which knows more, is not installed" if timm is None else ""
        raise UnknownNameError(f"{where} know no classifier {arch!r}{nearest_names(arch, everything)}{note}")


def _timm_pixels(model: nn.Module) -> Normalization | None:
    """Mean and deviation that timm gives of its pretrained networks; torchvision's all expect ImageNet's."""
    known = getattr(model, "pretrained_cfg", {})
    return (tuple(known["mean"]), tuple(known["std"])) if known.get("mean") and known.get("std") else None


def _patch_of(arch: str) -> int | None:
    """Side of the patches of torchvision's vision transformers, ``vit_b_16``; they are made for images of one size."""
    name = re.fullmatch(r"vit_[blh]_(\d+)", arch)
    return int(name[1]) if name else None


def _at_size(model: nn.Module, arch: str, classes: int, size: int | None) -> nn.Module:
    """The same model for images of another size, where it is one that cares."""
    transformers = import_optional("torchvision.models.vision_transformer")
    if size is None or not isinstance(model, transformers.VisionTransformer) or model.image_size == size:
        return model
    other = _build(next(_libraries(arch, size))[1], classes)
    other.load_state_dict(transformers.interpolate_embeddings(size, model.patch_size, model.state_dict()))
    return other


def _build(builder: Callable[[int], nn.Module], classes: int) -> nn.Module:
    """A model with random weights, which are about to be replaced: the caller's random state does not notice."""
    with torch.random.fork_rng():
        return _quietly(builder, classes)


def _quietly(builder: Callable[[int], nn.Module], classes: int) -> nn.Module:
    """The same with weights from torch's generator."""
    with warnings.catch_warnings():  # some torchvision models warn of their slow initialisation
        warnings.simplefilter("ignore")
        return builder(classes)
