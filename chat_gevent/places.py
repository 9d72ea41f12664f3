"""How many clients of one address there are, where that is limited."""

from __future__ import annotations

from collections import Counter


class Places:
    """The places that each address has, counted in this process. Another kind may count them elsewhere.

    :param most: places of each address.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: Counter[str] = Counter()

    def full(self, host: str) -> bool:
        """Whether an address has no place left now; another process may take the last one meanwhile."""
        return self._taken[host] >= self.most

    def take(self, host: str) -> bool:
        """Take a place of an address; False where it has none left."""
        if self.full(host):
            return False
        self._taken[host] += 1
        return True

    def give_back(self, host: str) -> None:
        """Give back a place that was taken."""
        self._taken[host] -= 1
        if not self._taken[host]:
            del self._taken[host]
