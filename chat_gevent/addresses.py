"""Addresses of peers as people write them."""

from __future__ import annotations

from typing import Any


def address_text(address: Any) -> str:
    """A peer's address as people write it: ``192.0.2.1:43``, ``[2001:db8::1]:43``, ``unix``, ``unknown``."""
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
    return "unknown" if address is None else "unix"
