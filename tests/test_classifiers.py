"""The judge: a classifier asked about images, right in its pixels, its classes and its device, and left as it was."""

from __future__ import annotations

import pytest
import torch
import torchvision
from fake_gpu import back, fake_gpu, on_gpu
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models import VisionTransformer
from torchvision.transforms.v2.functional import normalize

from sgdmix_albu.classifiers import Judge, open_judge, save_classifier
from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.expand.models import open_teacher
from sgdmix_albu.refine.strength import vouched
from sgdmix_albu.saliency.judged import JudgedBackend
from sgdmix_albu.settings import ClassifierSettings

BYTES = torch.randint(0, 256, (5, 3, 8, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Means(nn.Module):
    """Logits are the means of the three channels it is shown."""

    def forward(self, images):
        return images.mean((2, 3))


@pytest.mark.parametrize("form", ["uint8", "float32", "float64", "float16"])
def test_each_dtype_is_shown_as_the_same_picture(form):
    images = BYTES if form == "uint8" else (BYTES / 255).to(getattr(torch, form))
    unit = BYTES / 255
    close = {"atol": 1e-3, "rtol": 0} if form == "float16" else {}
    plain, standard = Judge(Means(), None, "none"), Judge(Means(), None, "imagenet")
    torch.testing.assert_close(plain(images), unit.mean((2, 3)), **close)
    torch.testing.assert_close(
        standard(images), normalize(unit, *IMAGENET).mean((2, 3)), **{**close, "atol": 1e-2} if close else {}
    )


def test_a_dark_picture_of_bytes_is_not_taken_for_floats():
    """Values 0 and 1 of uint8 are nearly black, whatever the largest one is."""
    dark = torch.ones(1, 3, 4, 4, dtype=torch.uint8)
    torch.testing.assert_close(Judge(Means(), None, "none")(dark), torch.full((1, 3), 1 / 255))


def test_outputs_are_the_datas_classes():
    judge = Judge(Means(), (2, 0), "none")
    torch.testing.assert_close(judge(BYTES), (BYTES / 255).mean((2, 3))[:, [2, 0]])
    assert judge.outputs_of(torch.tensor([1, 0, 1])).tolist() == [0, 2, 0]
    assert Judge(Means(), None, "none").outputs_of(torch.tensor([1])) is None
    assert open_judge(Means(), ["a", "b", "c"], normalize="none").outputs == (0, 1, 2)


@pytest.mark.parametrize("fails", [False, True])
def test_no_trace_is_left(fails):
    """A model in training, with one layer that its owner keeps still: modes, statistics and gradients stay."""

    class Model(nn.Sequential):
        def forward(self, images):
            if fails:
                raise ValueError("no such size")
            return super().forward(images)

    model = Model(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    model.train()
    model[3].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    judge = Judge(model, None, "imagenet", "the teacher")
    if fails:
        with pytest.raises(SGDMixError, match=r"the teacher failed on images of \(5, 3, 8, 6\): no such size"):
            judge(BYTES)
        with pytest.raises(SGDMixError, match="no such size"):
            vouched(model, BYTES, [0] * 5, 0.5)
    else:
        assert torch.equal(judge(BYTES), judge(BYTES))  # no dropout
        vouched(model, BYTES, [0] * 5, 0.5)
    assert [module.training for module in model] == [True, True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_models_that_wrap_their_logits():
    class Wrapped(nn.Module):
        def forward(self, images):
            return type("Output", (), {"logits": images.mean((2, 3))})()

    torch.testing.assert_close(Judge(Wrapped(), None, "none")(BYTES), (BYTES / 255).mean((2, 3)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (BYTES[0], r"expected \(B, 3, H, W\) images for the classifier, got \(3, 8, 6\)"),
        (BYTES[:, :1], r"got \(5, 1, 8, 6\)"),
        (BYTES.long(), r"expected uint8 or float images for the classifier, got torch\.int64"),
        (BYTES.float(), r"expected float images in \[0, 1\] for the classifier, got values from 0 to 255"),
        (torch.full((1, 3, 4, 4), torch.nan), "got values from nan to nan"),
    ],
)
def test_images_that_it_cannot_be_asked_about(images, message):
    with pytest.raises(InvalidInputError, match=message):
        Judge(Means(), None, "imagenet")(images)


def test_a_model_that_gives_no_logits():
    with pytest.raises(InvalidInputError, match=r"must return logits \(5, K\), got \(5, 3, 8, 6\)"):
        Judge(nn.Identity(), None, "none")(BYTES)


def test_a_model_of_another_size_says_so():
    judge = Judge(VisionTransformer(32, 16, 1, 1, 8, 8, num_classes=3), None, "none", "vit")
    assert judge(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(SGDMixError, match=r"vit failed on images of \(2, 3, 48, 40\)"):
        judge(torch.rand(2, 3, 48, 40))


def test_normalize_is_one_of_two():
    with pytest.raises(InvalidInputError, match="normalize must be 'imagenet' or 'none', got 'clip'"):
        open_judge(Means(), ["a"], normalize="clip")


@pytest.mark.parametrize(("of_model", "of_images"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda:1", "cuda:0")])
def test_model_and_images_may_be_apart(of_model, of_images):
    """With stand-ins of tensors on a GPU, which refuse to be mixed with others as real ones do."""
    with FakeTensorMode():
        model = nn.Sequential(nn.Conv2d(3, 4, 3, device=of_model), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8, device=of_images)
        found = Judge(model, (1, 0), "imagenet").logits(images)
        assert str(found.device) == str(images.device)
        assert found.shape == (2, 4)


def test_images_are_brought_to_the_size_that_a_classifier_was_trained_at() -> None:
    images = torch.rand(2, 3, 12, 20)
    shown = Judge(Means(), None, "none", side=8).pixels(images)
    torch.testing.assert_close(
        shown, torch.nn.functional.interpolate(images, size=(8, 8), mode="bilinear", antialias=True)
    )
    square = images[..., :12]
    assert torch.equal(Judge(Means(), None, "none", side=12).pixels(square), square)


def test_which_images_are_given_their_label() -> None:
    """Of more images than are shown at once, by all outputs of the model."""
    images = torch.zeros(100, 3, 4, 4, dtype=torch.uint8)
    images[torch.arange(100), torch.arange(100) % 3] = 255
    labels = torch.arange(100) % 2
    in_order = Judge(Means(), None, "none").names(images, labels)
    assert torch.equal(in_order, torch.arange(100) % 3 == labels)
    by_name = Judge(Means(), (2, 0), "none").names(images, labels)
    assert torch.equal(by_name, torch.arange(100) % 3 == torch.tensor([2, 0])[labels])


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


MANY = torch.randint(0, 256, (150, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_the_model_goes_to_its_device_when_it_is_first_asked_and_all_images_cost_one_wait():
    expected = Judge(network(), (2, 0), "imagenet")(MANY)
    with fake_gpu() as gpu:
        model = network()
        judge = Judge(model, (2, 0), "imagenet", device=torch.device("cuda"))
        assert model[0].weight.device.type == "cpu"
        judge(MANY[:1])
        assert model[0].weight.device.type == "cuda"
        gpu.waits.clear()
        found = judge(MANY)
        assert len(gpu.waits) == 1, gpu.waits  # for the answers
        torch.testing.assert_close(found, expected)
        there = judge(on_gpu(MANY))
        assert there.device.type == "cuda"
        torch.testing.assert_close(back(there), expected)
        assert judge.names(on_gpu(MANY), expected.argmax(1)).device.type == "cuda"


def test_images_are_shown_a_few_at_a_time():
    sizes = []
    model = network()
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    found = Judge(model, None, "none")(MANY)
    assert sizes == [64, 64, 22]
    torch.testing.assert_close(found, model(MANY / 255))
    assert Judge(model, None, "none")(MANY[:0]).shape == (0, 3)


def test_a_classifier_from_a_file_works_on_the_gpu_where_there_is_one(tmp_path, monkeypatch):
    path = tmp_path / "weights.pt"
    save_classifier(path, torchvision.models.squeezenet1_1(num_classes=2), arch="squeezenet1_1", class_names=["a", "b"])
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = open_judge(path, ["b", "a"], device="cpu")(images)
    with fake_gpu():
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        judge = open_judge(path, ["b", "a"])
        assert open_judge(path, ["b", "a"], device="cpu").device == torch.device("cpu")
        assert open_judge(network(), ["a", "b", "c"]).device is None  # the user's own stays where it is
        monkeypatch.undo()
        torch.testing.assert_close(judge(images), expected)
        assert next(judge.model.parameters()).device.type == "cuda"
    with pytest.raises(InvalidInputError, match="expected a device such as 'cpu', 'cuda' or 'mps', got 'gpu'"):
        open_judge(path, ["b", "a"], device="gpu")


@pytest.mark.parametrize(
    ("name", "options"),
    [("occlusion", {"sliding_window_shapes": (3, 4, 4), "strides": (3, 4, 4)}), ("feature_ablation", {})],
)
def test_saliency_through_a_judge_is_made_where_the_judge_works(name, options):
    images, labels = MANY[:4], torch.tensor([0, 1, 0, 1])
    expected = JudgedBackend(name, Judge(network(), (2, 0), "imagenet"), **options).coarse(images, labels)
    with fake_gpu():
        judge = Judge(network(), (2, 0), "imagenet", device=torch.device("cuda"))
        backend = JudgedBackend(name, judge, **options)
        found = backend.coarse(images, labels)
        assert judge.pixels(images).device.type == "cuda"
        torch.testing.assert_close(found, expected)  # where the images are


def test_the_device_that_was_said_of_the_refiner_is_the_teachers(tmp_path):
    path = tmp_path / "weights.pt"
    save_classifier(path, torchvision.models.squeezenet1_1(num_classes=2), arch="squeezenet1_1", class_names=["a", "b"])
    found = [open_teacher(ClassifierSettings(path), ["a", "b"], device).device for device in ("cuda", "cpu")]
    assert found == [torch.device("cuda"), torch.device("cpu")]


class Cramped(nn.Module):
    """Means of the channels, of no more images at once than there is room for."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.asked = room, list[int]()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
        return images.mean((2, 3))


def test_where_memory_runs_out_fewer_images_are_shown_at_once() -> None:
    images = torch.rand(70, 3, 4, 4)
    model = Cramped(room=10)
    torch.testing.assert_close(Judge(model, None, "none").logits(images), images.mean((2, 3)))
    assert sum(count for count in model.asked if count <= 10) == 70  # each once
    with pytest.raises(SGDMixError, match=r"failed on images of \(1, 3, 4, 4\): CUDA out of memory\. Tried"):
        Judge(Cramped(room=0), None, "none").logits(images)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: nn.Module, device: torch.device) -> nn.Module:
        raise RuntimeError("Found no NVIDIA driver\non your system")

    monkeypatch.setattr(Cramped, "to", refuse, raising=False)
    judge = Judge(Cramped(room=9), None, "none", "resnet18", device=torch.device("cuda"))
    for ask in (judge, judge.pixels):
        with pytest.raises(SGDMixError, match="resnet18 cannot be moved to cuda: Found no NVIDIA driver on your sys"):
            ask(torch.rand(2, 3, 4, 4))
