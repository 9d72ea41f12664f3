"""What happens when a test ends (stub)."""

from typing import Any


class Finish:
    """Stub."""

    def __init__(self, kit: Any) -> None:
        self.kit = kit

    def attach(self) -> None:
        """Stub."""
