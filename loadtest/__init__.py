"""Load tests of TCP servers with Locust: a raw-TCP user, its client, and reports with honest latencies.

Start at :mod:`loadtest.tcp_user` (``TcpUser``, ``ConfirmUser``) and ``loadtest/README.md``. This file imports
nothing, because importing Locust patches the standard library for gevent.
"""
