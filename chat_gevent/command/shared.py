"""A stand-in for the figures of all workers in shared memory: it only gives out slots."""

from __future__ import annotations


class SharedFigures:
    """Slots for workers. :param slots: how many there are."""

    def __init__(self, slots: int) -> None:
        self._free = set(range(slots))

    def claim(self) -> int:
        """A slot for a new worker. Raises RuntimeError: none is free."""
        if not self._free:
            raise RuntimeError("no slot is free")
        slot = min(self._free)
        self._free.remove(slot)
        return slot

    def release(self, slot: int) -> None:
        """The worker of a slot has ended."""
        self._free.add(slot)

    def open(self, slot: int) -> None:
        """Publish in a slot from now on."""

    def publish(self, process: object) -> None:
        """Publish the figures of a process."""
