"""Refusals: at once on a CPU, in one go on a GPU, the first one first."""

from __future__ import annotations

import pytest
import torch
from fake_gpu import fake_gpu, on_gpu

from sgdmix_albu.refusals import read_together, refuse_if


def refusal(words: str):
    return lambda: ValueError(words)


def test_on_a_cpu_they_come_at_once():
    after = []

    def batch():
        with read_together():
            refuse_if(torch.tensor([False, True]), refusal("first"))
            after.append("second")

    with pytest.raises(ValueError, match="first"):
        batch()
    assert not after


def test_on_a_gpu_they_wait_for_the_end_and_cost_one_reading():
    after = []

    def batch(gpu):
        with read_together():
            with read_together():
                refuse_if(on_gpu(torch.tensor([False, False])), refusal("first"))
                refuse_if(on_gpu(torch.tensor([False, True])), refusal("second"))
            refuse_if(on_gpu(torch.tensor(True)), refusal("third"))
            after.append(len(gpu.waits))

    with fake_gpu() as gpu:
        with pytest.raises(ValueError, match="second"):
            batch(gpu)
        assert len(gpu.waits) == 1
    assert after == [0]


def test_nothing_asked_costs_no_reading():
    with fake_gpu() as gpu, read_together():
        on_gpu(torch.rand(3)).sum()
    assert not gpu.waits


def test_outside_of_a_block_a_gpu_is_read_at_once():
    with fake_gpu(), pytest.raises(ValueError, match="now"):
        refuse_if(on_gpu(torch.tensor(True)), refusal("now"))


def test_a_blocks_own_error_is_told_and_the_next_block_begins_anew():
    def batch():
        with read_together():
            refuse_if(on_gpu(torch.tensor(True)), refusal("held"))
            raise KeyError("own")

    with fake_gpu():
        with pytest.raises(KeyError):
            batch()
        with read_together():
            pass


def test_the_fake_gpu_counts_what_waits_and_only_that():
    with fake_gpu() as gpu:
        there = on_gpu(torch.rand(4, 3))
        here = torch.rand(4, 3)
        free = [
            lambda: there + 1,
            lambda: there.sum() > 2,
            lambda: torch.where(there > 0.5, there, 0.0),
            lambda: here.to(there.device, non_blocking=True),
            lambda: there[there.argmax(0)],
            lambda: torch.arange(3, device="cuda"),
        ]
        waits = [
            lambda: bool((there > 0).all()),
            lambda: there.sum().item(),
            lambda: there[there > 0.5],
            lambda: (there > 0.5).nonzero(),
            lambda: there.cpu(),
            lambda: here.to(there.device),
            lambda: torch.tensor([1, 2], device="cuda"),
            lambda: torch.equal(there, there),
            lambda: torch.linalg.cholesky(torch.eye(3, device="cuda")),
        ]
        for step in free:
            step()
            assert not gpu.waits
        for number, step in enumerate(waits, 1):
            step()
            assert len(gpu.waits) == number, gpu.waits[-1]
        assert "test_refusals.py" in gpu.waits[0]


def test_the_fake_gpu_works_in_inference_mode():
    """There torch hands over calls that autograd would have taken apart, and views of what is no inference tensor."""
    weights = torch.arange(12.0).view(3, 4)
    with fake_gpu() as gpu, torch.inference_mode():
        kept = on_gpu(weights)[1:]
        half = kept.to(dtype=torch.float16, device=kept.device)
        assert half.device.type == "cuda"
        assert not gpu.waits
        assert half.cpu().tolist() == weights[1:].tolist()
        assert len(gpu.waits) == 1
