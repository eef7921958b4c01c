"""``SGDMix(refiner=...)``: the whole method inside a torchvision pipeline."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest
import torch
from tiny_diffusion import tiny_base, tiny_refiner
from torchvision import tv_tensors

from sgdmix_albu import SGDMix
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing import compose
from sgdmix_albu.refine import Refined, get_refiner
from sgdmix_albu.refine.preserve import mask_core
from sgdmix_albu.torchvision.refining import DEFAULTS

LABELS = torch.tensor([0, 1, 0, 1, 1, 0])


@pytest.fixture(scope="module")
def refiner(tmp_path_factory):
    base = tiny_base(tmp_path_factory.mktemp("base") / "sd")
    return tiny_refiner(tmp_path_factory.mktemp("refiner"), base, ("a", "b"))


@pytest.fixture
def images():
    """A bright disc, somewhere, on a dark ground: saliency that is easy."""
    ys, xs = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    centres = torch.tensor([[10, 10], [20, 12], [14, 20], [22, 22], [12, 16], [16, 12]])
    discs = ((ys - centres[:, :1, None]) ** 2 + (xs - centres[:, 1:, None]) ** 2) < 36
    noise = torch.randint(0, 60, (6, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    return (noise + 150 * discs[:, None]).to(torch.uint8)


def transform(refiner, *, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return SGDMix("spectral_residual", mask="otsu", refiner=refiner, generator=generator, **options)


@pytest.mark.parametrize("fill", ["source", "inpaint"])
def test_the_mixed_images_are_refined_by_their_labels_and_told_of_paint(refiner, images, fill):
    def mixer():
        return SGDMix("spectral_residual", mask="otsu", fill=fill, generator=torch.Generator().manual_seed(0))

    plain = mixer()(images, LABELS)[0]
    holes = mixer().make_params([images], labels=LABELS)["plan"].painted
    one = transform(refiner, strength=0.9, fill=fill, preserve="none")
    done, labels = one(images, LABELS)
    assert labels is LABELS
    assert (done.shape, done.dtype) == (images.shape, images.dtype)
    rows = (plain != images).flatten(1).any(1)
    assert rows.any()
    options = {} if fill == "source" else {"holes": holes[rows]}
    assert all(hole.any() for hole in options.values())
    expected = get_refiner(refiner).refine(
        plain[rows], classes=LABELS[rows], strength=0.9, seeds=torch.tensor(one.refined.seeds), **options
    )
    assert torch.equal(done[rows], expected.images)
    assert torch.equal(done[~rows], images[~rows])


def test_untouched_images_stay_bit_identical(refiner, images):
    one = transform(refiner, p=0.5, seed=2)
    done, _ = one(images, LABELS)
    changed = (done != images).flatten(1).any(1)
    assert 0 < int(changed.sum()) < 6
    assert len(one.refined.seeds) == int(changed.sum())
    assert not changed[0]  # so that the first labels are not the mixed images' own
    assert one.refined.prompts == tuple(f"<tiny-{label:03d}> x" for label in LABELS[changed].tolist())


def test_strict_keeps_the_source_in_the_core(refiner, images):
    one = transform(refiner, strength=0.9, preserve="strict")
    params = one.make_params([images], labels=LABELS)
    done = one.transform(images, params)
    core = mask_core(params["plan"].masks, 1)[:, None].expand_as(images)
    assert core.any()
    assert torch.equal(done[core], images[core])


def test_strict_keeps_a_moved_object_where_it_is_now(refiner, images):
    one = transform(refiner, strength=0.9, preserve="strict", place="random")
    params = one.make_params([images], labels=LABELS)
    plan = params["plan"]
    mixed, done = compose(plan, images, images), one.transform(images, params)
    core = mask_core(plan.masks, 1)[:, None].expand_as(images)
    assert not torch.equal(plan.masks, plan.cutouts)
    assert core.any()
    assert torch.equal(done[core], mixed[core])
    assert not torch.equal(done, mixed)


def test_masks_are_mixed_and_never_refined(refiner, images):
    masks = tv_tensors.Mask(torch.arange(6)[:, None, None, None].expand(6, 1, 32, 32).clone())
    done = transform(refiner)({"images": images, "masks": masks, "labels": LABELS})
    assert set(done["masks"].unique().tolist()) <= set(range(6))


def test_a_pickle_carries_the_key_and_not_the_weights(refiner, images):
    one = transform(refiner)
    content = pickle.dumps(one)
    first, _ = one(images, LABELS)
    assert len(content) < 20_000
    assert torch.equal(pickle.loads(content)(images, LABELS)[0], first)
    assert len(pickle.dumps(one)) < 60_000  # with the last batch's record, without the model
    assert not one.state_dict()


@pytest.mark.parametrize("options", [{"strength": 2.0}, {"strength": "huge"}, {"preserve": "hard"}])
def test_settings_that_mean_nothing(refiner, options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        transform(refiner, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"strength": 2}, r"strength must lie in \(0, 1\], got 2"), ({"preserve": "all"}, "preserve must be one of none")],
)
def test_settings_that_mean_nothing_without_a_refiner_either(options, message):
    with pytest.raises(InvalidInputError, match=message):
        SGDMix("spectral_residual", **options)


@pytest.mark.parametrize("options", [{"strength": 0.5}, {"preserve": "none"}, {"strength": (0.3, 0.9)}])
def test_settings_that_do_nothing_warn(options):
    ((name, value),) = options.items()
    with pytest.warns(UserWarning, match=rf"^{name}={re.escape(repr(value))} does nothing without a refiner") as told:
        SGDMix("spectral_residual", **options)
    assert told[0].filename == __file__
    defaults = {name: parameter.default for name, parameter in inspect.signature(SGDMix).parameters.items()}
    assert DEFAULTS.items() <= defaults.items()


def test_no_labels_no_prompt(refiner, images):
    with pytest.raises(InvalidInputError, match="refiner needs labels"):
        transform(refiner)(images)


def test_a_refiner_of_a_users_own_need_not_know_of_holes(images):
    class Own:
        def refine(self, images, *, classes, strength, seeds, masks, preserve):
            return Refined(255 - images, (), (), (), (), (), preserve)

    done, _ = transform(Own(), fill="inpaint")(images, LABELS)
    plain, _ = transform(None, fill="inpaint")(images, LABELS)
    rows = (plain != images).flatten(1).any(1)
    assert rows.any()
    assert torch.equal(done[rows], 255 - plain[rows])
