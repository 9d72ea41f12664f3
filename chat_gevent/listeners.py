"""Addresses to listening sockets."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chat_gevent.settings import Settings


def tune(listener: socket.socket, settings: Settings) -> None:
    """Set on a TCP listener what its clients inherit: no delay, keepalive, user timeout.

    Linux copies these from the listening socket, so that no accepted one needs a system call for them.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    tcp = socket.IPPROTO_TCP
    listener.setsockopt(tcp, socket.TCP_NODELAY, 1)
    if settings.keepalive_idle:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(tcp, socket.TCP_KEEPIDLE, settings.keepalive_idle)
        listener.setsockopt(tcp, socket.TCP_KEEPINTVL, settings.keepalive_interval)
        listener.setsockopt(tcp, socket.TCP_KEEPCNT, settings.keepalive_probes)
    if settings.tcp_user_timeout:
        listener.setsockopt(tcp, socket.TCP_USER_TIMEOUT, int(settings.tcp_user_timeout * 1000))
