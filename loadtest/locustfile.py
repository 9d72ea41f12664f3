"""Load-test a server that speaks the confirm protocol: ``locust -f loadtest/locustfile.py --host tcp://HOST:PORT``.

Everything is an option; see ``locust -f loadtest/locustfile.py --help-tcp`` and ``loadtest/README.md``.
"""

from loadtest.tcp_user import ConfirmUser

__all__ = ["ConfirmUser"]
