"""Patch the standard library with gevent's in a process that has imported much of it already."""

from __future__ import annotations

import warnings

from gevent import monkey


def patch_late() -> None:
    """Patch it before a handler is imported, which is what the patch is for; our own modules need none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ``ssl`` is imported already
        monkey.patch_all()
