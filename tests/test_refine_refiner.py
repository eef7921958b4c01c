"""The refiner as users hold it: lazy, shared, pickled, adaptive, protected."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import weakref
from functools import partial

import pytest
import torch
from fake_gpu import fake_gpu
from tiny_diffusion import tiny_base, tiny_refiner
from torch._dynamo.testing import CompileCounter

from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.refine import RefinerSpec, components, get_refiner
from sgdmix_albu.refine.batching import in_batches
from sgdmix_albu.refine.catalogue import register_refiner
from sgdmix_albu.refine.denoise import denoise
from sgdmix_albu.refine.preserve import mask_core
from sgdmix_albu.refine.refiner import Refiner
from sgdmix_albu.refine.strength import strengths_for, vouched

CLASSES = ("000.red_bird", "001.blue_bird")
IMAGES = torch.randint(0, 256, (6, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = [0, 1, 0, 1, 0, 1]
SEEDS = list(range(6))
MASKS = torch.zeros(6, 32, 32, dtype=torch.bool)
MASKS[:, 8:24, 8:24] = True


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    return tiny_refiner(tmp_path_factory.mktemp("refiner"), base, CLASSES)


@pytest.fixture(scope="module")
def refiner(folder):
    return get_refiner(folder)


def refine(refiner, rows=slice(None), **options):
    options = {"strength": 0.7, "classes": LABELS[rows], "seeds": SEEDS[rows]} | options
    return refiner.refine(IMAGES[rows], **options)


def test_nothing_is_loaded_before_the_first_image(folder):
    code = (
        "import sys; from sgdmix_albu.refine import get_refiner; from sgdmix_albu import SGDMix;"
        f"r = get_refiner({str(folder)!r}); SGDMix(refiner={str(folder)!r});"
        "heavy = {'diffusers', 'transformers', 'peft', 'accelerate'} & set(sys.modules);"
        "assert not r.loaded and not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_load_once(folder, monkeypatch):
    loads = []
    real = components.load_base
    monkeypatch.setattr("sgdmix_albu.refine.loading.load_base", lambda *a, **k: loads.append(1) or real(*a, **k))
    shared = get_refiner(folder)
    results = [None] * 4
    threads = [
        threading.Thread(target=lambda i=i: results.__setitem__(i, refine(shared, slice(i, i + 1)).images))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert shared.loaded
    for i, images in enumerate(results):
        assert torch.equal(images, refine(shared, slice(i, i + 1)).images)


def test_released_and_loaded_again(folder):
    one = get_refiner(folder)
    before = refine(one).images
    one.release()
    assert not one.loaded
    assert torch.equal(refine(one).images, before)


def test_a_pickle_carries_settings_and_gives_the_same_images(refiner):
    before = refine(refiner)
    content = pickle.dumps(refiner)
    assert len(content) < 5000
    again = pickle.loads(content)
    assert not again.loaded
    assert torch.equal(refine(again).images, before.images)


def test_batches_of_one_and_of_many_agree(folder):
    strengths = torch.tensor([0.3, 0.9, 0.5, 0.9, 0.3, 0.05])
    whole = refine(get_refiner(folder, batch_size=6), strength=strengths)
    parts = refine(get_refiner(folder, batch_size=1), strength=strengths)
    assert (whole.images.int() - parts.images.int()).abs().max() <= 1  # rounding of sums in another order
    assert whole.timesteps == parts.timesteps
    assert whole.strengths == pytest.approx((0.3, 0.9, 0.5, 0.9, 0.3, 0.0))


def test_two_runs_are_equal_bit_by_bit(refiner):
    assert torch.equal(refine(refiner).images, refine(refiner).images)


def test_the_fine_tuning_matters(refiner, folder):
    alone = get_refiner(folder, finetuned=False)
    assert alone.prompt_for(0) == "x"
    assert get_refiner(folder, finetuned=False, class_names=CLASSES).prompt_for(1) == "blue bird x"
    assert refiner.prompt_for("001.blue_bird") == "<tiny-001> x"
    prompts = [refiner.prompt_for(0)] * 6
    ours, theirs = (one.refine(IMAGES, prompts=prompts, strength=0.9, seeds=SEEDS).images for one in (refiner, alone))
    assert not torch.equal(ours, theirs)


def test_floats_and_bytes_agree(refiner):
    whole, real = refine(refiner), refiner.refine(IMAGES.float() / 255, classes=LABELS, strength=0.7, seeds=SEEDS)
    assert real.images.dtype == torch.float32
    assert torch.equal((real.images * 255).round().to(torch.uint8), whole.images)


@pytest.mark.parametrize("preserve", ["none", "soft", "strict"])
def test_preserve(refiner, preserve):
    found = refine(refiner, masks=MASKS, preserve=preserve, strength=0.9)
    core = mask_core(MASKS, 1)[:, None].expand_as(IMAGES)
    exact = torch.equal(found.images[core], IMAGES[core])
    assert exact == (preserve == "strict")
    assert not torch.equal(found.images[~core], IMAGES[~core])
    assert found.preserve == preserve


@pytest.mark.parametrize("preserve", ["none", "soft", "strict"])
def test_only_the_papers_way_lets_the_background_follow_the_classes_prompt(folder, preserve):
    """In one step the object, at a third of the strength, does not move: what follows the prompt is off it."""
    one = get_refiner(folder, steps=1)
    options = {"masks": MASKS, "preserve": preserve, "strength": 1.0}
    red, blue = (refine(one, classes=[label] * 6, **options).images for label in (0, 1))
    assert torch.equal(red, blue) == (preserve != "none")
    assert not torch.equal(red, IMAGES)


@pytest.mark.parametrize("preserve", ["none", "soft", "strict"])
def test_holes_are_drawn_anew_at_a_strength_of_their_own(folder, preserve):
    holes = torch.zeros_like(MASKS)
    holes[:3, :, 24:] = True
    filling = {"masks": MASKS, "holes": holes, "preserve": preserve, "strength": 0.1}  # leaves none of the six steps
    assert torch.equal(refine(get_refiner(folder), **filling).images, IMAGES)
    found = refine(get_refiner(folder, hole_strength=1.0), **filling)
    moved = (found.images.int() - IMAGES.int()).abs().float()
    assert (moved[:3, :, :, 24:].mean((1, 2, 3)) > 20).all()
    assert torch.equal(found.images[3:], IMAGES[3:])
    assert found.strengths == (0.0,) * 6
    core = mask_core(MASKS, 1)[:, None].expand_as(IMAGES)
    assert torch.equal(found.images[core], IMAGES[core]) == (preserve == "strict")


@pytest.mark.parametrize("size", [(40, 72), (70, 33)])
def test_images_of_another_size_come_back_in_it(refiner, size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(2, *size, dtype=torch.bool)
    masks[:, 10:30, 10:30] = True
    found = refiner.refine(images, classes=[0, 1], strength=0.5, seeds=[1, 2], masks=masks, preserve="strict")
    core = mask_core(masks, 1)[:, None].expand_as(images)
    assert found.images.shape == images.shape
    assert torch.equal(found.images[core], images[core])


def test_a_strength_without_a_step_leaves_the_image_alone(refiner):
    found = refine(refiner, strength=0.1)  # of six steps
    assert torch.equal(found.images, IMAGES)
    assert found.timesteps == (None,) * 6
    assert found.strengths == (0.0,) * 6


def test_strengths_are_drawn_by_seed_from_the_refiners_set(refiner):
    found = refine(refiner, strength=None)
    assert set(found.strengths) <= {0.3, 0.6, 0.9}
    assert found.strengths == tuple(strengths_for((0.9, 0.3, 0.6), SEEDS))
    drawn = strengths_for((0.3, 0.5, 0.7, 0.9), range(4000))
    assert all(900 < drawn.count(value) < 1100 for value in (0.3, 0.5, 0.7, 0.9))


class Distance(torch.nn.Module):
    """A teacher whose verdict can be said beforehand: class 0 as long as an image is near the mixed one."""

    def __init__(self, mixed, limit):
        super().__init__()
        self.mixed, self.limit = mixed.float() / 255, limit

    def forward(self, images):
        near = torch.stack([(self.mixed - image).abs().mean((1, 2, 3)).min() for image in images])
        return torch.stack([20 * (self.limit - near), torch.zeros_like(near)], 1) * 100


def test_adaptive_is_the_largest_strength_that_the_teacher_allows(folder):
    ladder = (0.9, 0.6, 0.3)
    rungs = {strength: refine(get_refiner(folder), classes=[0] * 6, strength=strength).images for strength in ladder}
    moved = [(images.float() - IMAGES).abs().mean((1, 2, 3)) / 255 for images in rungs.values()]
    teacher = Distance(IMAGES, float(torch.cat(moved).median()))
    found = refine(get_refiner(folder, teacher=teacher), classes=[0] * 6, strength="adaptive")
    for row in range(6):
        allowed = [s for s in ladder if vouched(teacher, rungs[s][row : row + 1], [0], 0.5)[0]]
        expected = max(allowed, default=0.0)
        picture = rungs[expected][row] if allowed else IMAGES[row]
        assert found.strengths[row] == expected
        assert found.accepted[row] == bool(allowed)
        assert (found.images[row].int() - picture.int()).abs().max() <= 1
    assert len(set(found.strengths)) > 1


def test_a_teacher_vouches_for_the_class_with_confidence():
    """Softmax of (0, log 3) is (1/4, 3/4)."""
    logits = torch.tensor([[0.0, 3.0], [0.0, 3.0], [3.0, 0.0]]).clamp(min=1).log()
    images = torch.zeros(3, 3, 4, 4)
    assert vouched(lambda _: logits, images, [1, 0, 0], tau=0.74) == [True, False, True]
    assert vouched(lambda _: logits, images, [1, 0, 0], tau=0.76) == [False, False, False]
    with pytest.raises(InvalidInputError, match=r"logits \(3, K\)"):
        vouched(lambda _: logits[:2], images, [1, 0, 0], tau=0.5)
    with pytest.raises(InvalidInputError, match="knows 2 classes, an image has label 2"):
        vouched(lambda _: logits, images, [1, 0, 2], tau=0.5)


def test_rejected_images_are_the_mixed_ones(folder):
    found = refine(get_refiner(folder, teacher=Distance(IMAGES, -1.0)), classes=[0] * 6, strength="adaptive")
    assert found.accepted == (False,) * 6
    assert found.timesteps == (None,) * 6
    assert torch.equal(found.images, IMAGES)


def test_memory_that_runs_out_halves_the_batch():
    class Limited(torch.nn.Module):
        def forward(self, images):
            if len(images) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return images + 1

    sizes, model = [], Limited()
    for part, found in in_batches(
        lambda rows: model(torch.tensor(rows)), range(7), size=8, device=torch.device("cpu"), pixels=1, known={}
    ):
        sizes.append(len(part))
        assert found.tolist() == [row + 1 for row in part]
    assert sizes == [1] * 7  # 8 asked for, 7 there; 3 is still too many


def test_the_activations_of_a_batch_that_did_not_fit_are_gone_before_the_next():
    """Else the memory that a halved batch needs is still taken."""
    held = []

    def work(rows):
        assert all(reference() is None for reference in held)
        activations = torch.zeros(len(rows))
        if len(rows) > 1:
            held.append(weakref.ref(activations))
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return activations

    parts = [part for part, _ in in_batches(work, range(4), size=4, device=torch.device("cpu"), pixels=1, known={})]
    assert parts == [[0], [1], [2], [3]]
    assert len(held) == 2


class Memory:
    """A GPU's memory as torch.cuda tells of it, in images of 100 bytes beside a model of 1000."""

    total, model, image = 2000, 1000, 100

    def __init__(self, monkeypatch):
        self.allocated = self.peak = self.model
        self.told = {
            "reset_peak_memory_stats": lambda _: setattr(self, "peak", self.allocated),
            "memory_allocated": lambda _: self.allocated,
            "max_memory_allocated": lambda _: self.peak,
            "memory_reserved": lambda _: self.allocated,
            "mem_get_info": lambda _: (self.total - self.allocated, self.total),
        }
        for name, tell in self.told.items():
            monkeypatch.setattr(torch.cuda, name, tell)

    def work(self, rows):
        self.peak = max(self.peak, self.allocated + self.image * len(rows))
        return rows


def test_a_gpu_is_measured_once_for_each_size(monkeypatch):
    """Four fifths of what is free, 1000 bytes: eight images."""
    memory, known, gpu = Memory(monkeypatch), {}, torch.device("cuda")

    def sizes(count, pixels):
        return [
            len(part)
            for part, _ in in_batches(memory.work, range(count), size=None, device=gpu, pixels=pixels, known=known)
        ]

    assert sizes(20, 64) == [1, 8, 8, 3]
    assert known == {64: 100}
    assert sizes(20, 64) == [8, 8, 4]
    memory.image = 400
    assert sizes(5, 256) == [1, 2, 2]
    assert sizes(9, 64) == [8, 1]


def test_memory_for_not_even_one_is_an_error():
    def never(rows):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(DataError, match="memory for one image"):
        list(in_batches(never, range(3), size=2, device=torch.device("cpu"), pixels=1, known={}))


def test_other_errors_pass_through():
    def broken(rows):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(in_batches(broken, range(3), size=2, device=torch.device("cpu"), pixels=1, known={}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": None}, "either classes or prompts"),
        ({"prompts": ["a"] * 6}, "either classes or prompts"),
        ({"classes": [0]}, "expected 6 classes"),
        ({"seeds": [1, 2]}, "expected 6 seeds"),
        ({"seeds": [-1] * 6}, "seed must lie"),
        ({"strength": 0}, "strength must lie"),
        ({"strength": 1.5}, "strength must lie"),
        ({"strength": "most"}, "'adaptive'"),
        ({"strength": ()}, "strength must lie"),
        ({"strength": torch.rand(3) / 2 + 0.1}, "expected 6 strengths"),
        ({"strength": "adaptive"}, "needs a teacher"),
        ({"preserve": "soft"}, "needs masks"),
        ({"preserve": "soft", "masks": MASKS[:, :8]}, "expected bool masks"),
        ({"preserve": "soft", "masks": MASKS[:3]}, "expected bool masks"),
        ({"holes": MASKS[:, :8]}, r"expected bool holes \(6, 32, 32\)"),
        ({"holes": MASKS.float()}, "expected bool holes"),
    ],
)
def test_what_does_not_fit_is_refused_before_loading(folder, options, message):
    one = get_refiner(folder)
    with pytest.raises(InvalidInputError, match=message):
        refine(one, **options)
    assert not one.loaded


@pytest.mark.parametrize(("height", "width"), [(64, 4), (4, 64), (65, 16)])
def test_strips_are_refused_before_loading(folder, height, width):
    one = get_refiner(folder)
    with pytest.raises(InvalidInputError, match=f"at most 4 times as long as wide, got {height} x {width}"):
        one.refine(torch.zeros(1, 3, height, width), classes=[0], seeds=[1])
    assert not one.loaded


def break_numbers(refiner):
    """One weight of the UNet is no number: whatever it makes is none either."""
    with torch.no_grad():
        refiner.load().components.unet.conv_in.weight[0, 0, 0, 0] = float("nan")
    return refiner


@pytest.mark.parametrize("strength", [0.7, "adaptive"])
def test_numbers_that_are_none_are_no_image(folder, strength):
    one = break_numbers(get_refiner(folder, teacher=Distance(IMAGES, 2.0), tau=0.0))
    with pytest.warns(RuntimeWarning, match=r"NaN or infinite numbers for image\(s\) \[0, 1, 2, 3, 4, 5\] of 6"):
        found = refine(one, classes=[0] * 6, strength=strength)
    assert found.broken == (True,) * 6
    assert found.accepted == (False,) * 6
    assert found.strengths == (0.0,) * 6
    assert found.timesteps == (None,) * 6
    assert torch.equal(found.images, IMAGES)


def test_what_overflows_half_precision_is_done_again_in_single(folder):
    """The decoder's first weights, 30,000 times as large, leave the range of half precision, not of single."""
    half, single = (get_refiner(folder, dtype=torch.float16, batch_size=size) for size in (4, 1))
    for one in (half, single):
        with torch.no_grad():
            one.load().components.vae.decoder.conv_in.weight.mul_(30_000)
    parts = half.load().components
    broken = denoise(parts, IMAGES / 255, ["a"] * 6, strengths=[0.7] * 6, seeds=SEEDS, steps=6, guidance=3.0)
    assert not any(broken.finite)
    single.load().components.unet.float(), single.load().components.vae.float()
    found, expected = refine(half), refine(single)
    assert found.broken == expected.broken == (False,) * 6
    assert found.accepted == (True,) * 6
    assert found.timesteps == expected.timesteps
    assert torch.equal(found.images, expected.images)
    assert parts.dtype == torch.float16


def test_images_out_of_range(folder):
    with pytest.raises(InvalidInputError, match="before Normalize"):
        get_refiner(folder).refine(IMAGES.float(), classes=LABELS, seeds=SEEDS)


def test_unknown_names(folder, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'cub'"):
        get_refiner("cubb")
    with pytest.raises(InvalidInputError, match="key or a folder"):
        get_refiner(tmp_path)
    with pytest.raises(InvalidInputError, match=r"hole_strength must lie in \(0, 1\], or be None, got 0"):
        get_refiner(folder, hole_strength=0)
    with pytest.raises(UnknownNameError, match="labels 0 to 1; got label 7"):
        refine(get_refiner(folder), classes=[7] * 6)
    with pytest.raises(DataError, match=r"no refiner folder runs/r; to make one: sgdmix finetune DATA runs/r --meta"):
        get_refiner("runs/r")
    with pytest.raises(UnknownNameError, match=r"'000.red_brd'; did you mean '000.red_bird'\? It knows 2 classes"):
        refine(get_refiner(folder), classes=["000.red_brd"] * 6)


def test_missing_weights_say_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("SGDMIX_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"sgdmix finetune DATA .*refiners/cub --key cub"):
        get_refiner("cub")


def test_weights_in_the_cache_are_found(monkeypatch, tmp_path, folder):
    (tmp_path / "refiners").mkdir()
    (tmp_path / "refiners" / "tiny-cached").symlink_to(folder)
    monkeypatch.setenv("SGDMIX_CACHE", str(tmp_path))
    register_refiner("tiny-cached", RefinerSpec("tiny-cached", "x", resolution=32, base="nowhere/nothing", steps=6))
    assert get_refiner("tiny-cached").classes == CLASSES


def test_another_kind_of_base_is_refused(folder, tmp_path):
    sdxl = tiny_base(tmp_path / "sdxl", architecture="sdxl")
    with pytest.raises(DataError, match="fine-tuned on a base of kind 'sd'"):
        refine(get_refiner(folder, base=sdxl))


def test_schedulers_loras_and_embeddings_of_the_users_own(folder, base, tmp_path):
    from safetensors.torch import save_file

    save_file({"emb_params": torch.randn(2, 32)}, tmp_path / "moth.safetensors")
    spec = RefinerSpec("own", "x", prompt="{token} {metaclass}", resolution=32, base=str(base), revision=None, steps=4)
    plain = Refiner(spec, finetuned=False)
    own = Refiner(
        spec,
        finetuned=False,
        scheduler="LCMScheduler",
        guidance=0.0,
        loras=[folder / "unet_lora.safetensors"],
        embeddings={"moth": tmp_path / "moth.safetensors"},
    )
    assert own.prompt_for("moth") == "<own-moth> x"
    assert type(own.load().components.scheduler).__name__ == "LCMScheduler"
    found = [one.refine(IMAGES, classes=["moth"] * 6, strength=0.9, seeds=SEEDS).images for one in (plain, own)]
    assert not torch.equal(*found)
    with pytest.raises(InvalidInputError, match="scheduler must be one of .*got 'Euler'"):
        Refiner(spec, finetuned=False, scheduler="Euler").load()


def test_the_tiny_autoencoder(base, tmp_path):
    from diffusers import AutoencoderTiny

    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        ).save_pretrained(tmp_path / "taesd")
    spec = RefinerSpec("taesd", "x", resolution=32, base=str(base), revision=None, steps=4)
    found = Refiner(spec, finetuned=False, tiny_vae=tmp_path / "taesd").refine(
        IMAGES, prompts=["x"] * 6, strength=0.5, seeds=SEEDS
    )
    assert found.images.shape == IMAGES.shape
    with pytest.raises(DataError, match="TAESD"):
        Refiner(spec, finetuned=False, tiny_vae=tmp_path / "nothing").load()


def test_compiled_once_for_batches_of_any_length(folder, monkeypatch):
    """Images join at four steps, parts are of four and of two images, the next call is of three."""
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    torch._dynamo.reset()
    compiled = get_refiner(folder, compile=True, batch_size=4)
    strengths = torch.tensor([0.9, 0.3, 0.9, 0.5, 0.7, 0.7])
    for rows in (slice(None), slice(3)):
        found = refine(compiled, rows, strength=strengths[rows])
        assert counter.frame_count == 1
        expected = refine(get_refiner(folder), rows, strength=strengths[rows])
        assert (found.images.int() - expected.images.int()).abs().max() <= 1


def test_memory_is_asked_for_when_the_model_is_in_it(folder, monkeypatch):
    events = []
    real = components.load_base
    monkeypatch.setattr(
        "sgdmix_albu.refine.loading.load_base", lambda *a, **k: (real(*a, **k), events.append("loaded"))[0]
    )
    memory = Memory(monkeypatch)
    tell = memory.told["mem_get_info"]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (events.append("asked"), tell(device))[1])
    with fake_gpu():
        one = get_refiner(folder, device="cuda", dtype=torch.float32)
        one.memory[32 * 32] = 100  # as measured by an earlier call
        refine(one)
        one.release()
        refine(one)
    assert events == ["loaded", "asked", "loaded", "asked"]


def test_no_images_at_all(refiner):
    assert refiner.refine(IMAGES[:0], classes=[], seeds=[]).images.shape == (0, 3, 32, 32)
