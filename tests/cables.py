"""Two hosts with a cable between them: network namespaces that a test makes, and takes away again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.conftest import require, require_tool


@dataclass(frozen=True, slots=True)
class Cable:
    """A cable from the host ``here``, 10.77.0.1, to the host ``there``, 10.77.0.2."""

    here: str
    there: str

    @property
    def inside_here(self) -> tuple[str, ...]:
        """What a command begins with that is to run on the host ``here``."""
        return ("ip", "netns", "exec", self.here)

    @property
    def inside_there(self) -> tuple[str, ...]:
        """What a command begins with that is to run on the host ``there``."""
        return ("ip", "netns", "exec", self.there)

    def plug(self, state: str) -> None:
        """Have the far end be ``up`` or ``down``."""
        _ip("-n", self.there, "link", "set", "cable", state)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@contextmanager
def cable() -> Iterator[Cable]:
    """Lay a cable. The test is skipped, or fails under CI=true, where that can't be done."""
    require(os.geteuid() == 0, "root, for network namespaces")
    require_tool("ip")
    made = Cable(f"cg{os.getpid()}a", f"cg{os.getpid()}b")
    try:
        try:
            _ip("netns", "add", made.here)
            _ip("netns", "add", made.there)
        except subprocess.CalledProcessError as error:
            require(False, f"network namespaces: {error.stderr.decode().strip()}")
        _ip(
            "-n",
            made.here,
            "link",
            "add",
            "cable",
            "type",
            "veth",
            "peer",
            "name",
            "cable",
            "netns",
            made.there,
        )
        for number, name in enumerate((made.here, made.there), 1):
            _ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            _ip("-n", name, "link", "set", "cable", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield made
    finally:
        for name in (made.here, made.there):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20, check=False)
