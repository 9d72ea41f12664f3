"""The HTTP side door (being written)."""

from __future__ import annotations

from typing import Any


class Admin:
    """Placeholder."""

    def __init__(self, service: Any) -> None: ...

    def start(self) -> None:
        """Start."""

    def stop(self) -> None:
        """Stop."""
