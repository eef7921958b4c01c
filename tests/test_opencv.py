"""OpenCV in forked workers."""

from __future__ import annotations

import multiprocessing

import pytest

from sgdmix_albu.io.opencv import cv2


def _threads(channel) -> None:
    channel.put(cv2.getNumThreads())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_child_stays_off_the_pool_of_threads_and_the_parent_keeps_it() -> None:
    """A lock of the pool, held at the fork by a thread that the child does not have, is never released."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        context = multiprocessing.get_context("fork")
        channel = context.SimpleQueue()
        child = context.Process(target=_threads, args=(channel,))
        child.start()
        child.join()
        assert channel.get() == 1
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)
