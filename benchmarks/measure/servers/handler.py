"""A handler of one's own, and a service that sends to many: what `chat_gevent` is measured with besides.

The peers call the same :func:`handle` for each message, so that all servers of the scenario ``handler`` do
the same work.
"""

from __future__ import annotations


def handle(message: str, client: object) -> str:
    """Confirm a message."""
    return "Received: " + message
