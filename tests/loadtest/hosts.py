"""Test hosts: network namespaces linked with each other only, where the machine lets a test make them."""

from __future__ import annotations

import os
import subprocess


class Hosts:
    """One host at ``address`` and two that reach it; where there can't be any, all three are this machine.

    Host 0 has the bridge; nothing is added to the machine's own network.
    """

    def __init__(self) -> None:
        self.address = "10.213.7.1"
        self._names = [f"loadtest-{os.getpid()}-{number}" for number in range(3)]

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def __enter__(self) -> Hosts:
        try:
            self._make()
        except (subprocess.CalledProcessError, FileNotFoundError):
            self.__exit__()
            self.address = "127.0.0.1"
        return self

    def _make(self) -> None:
        hub, *others = self._names
        for name in self._names:
            self._ip("netns", "add", name)
            self._ip("-n", name, "link", "set", "lo", "up")
        self._ip("-n", hub, "link", "add", "bridge0", "type", "bridge")
        self._ip("-n", hub, "addr", "add", f"{self.address}/24", "dev", "bridge0")
        self._ip("-n", hub, "link", "set", "bridge0", "up")
        for number, name in enumerate(others):
            link = f"link{number}"
            self._ip("-n", hub, "link", "add", link, "type", "veth", "server", "name", "eth0", "netns", name)
            self._ip("-n", hub, "link", "set", link, "master", "bridge0", "up")
            self._ip("-n", name, "addr", "add", f"10.213.7.{number + 2}/24", "dev", "eth0")
            self._ip("-n", name, "link", "set", "eth0", "up")

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            try:
                subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
            except FileNotFoundError:
                return

    @property
    def apart(self) -> bool:
        """Whether the hosts are namespaces."""
        return self.address != "127.0.0.1"

    def on(self, number: int) -> tuple[str, ...]:
        """What a command is put behind to run on host ``number``."""
        return ("ip", "netns", "exec", self._names[number]) if self.apart else ()
