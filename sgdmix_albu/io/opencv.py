"""OpenCV, imported here once, so that forked workers (a loader's, on Linux) cannot hang in it.

A fork copies the locks of OpenCV's thread pool, but not its threads. Where a pool thread held a lock at that moment,
the child waits for ever at its next call of many OpenCV functions; seen in 1 of some 3,000 forks, and in a test run.
In a forked child OpenCV therefore works on the calling thread alone. The parent keeps its threads.
"""

from __future__ import annotations

import os

import cv2

__all__ = ["cv2"]

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: cv2.setNumThreads(0))
