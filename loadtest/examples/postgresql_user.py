"""PostgreSQL, for a user that needs no password: ``locust -f ... --host tcp://127.0.0.1:5432``."""

import re

from locust import task

from loadtest.framing import Counted, Several, Wire
from loadtest.tcp_user import TcpUser

HELLO = b"\0\3\0\0user\0postgres\0database\0postgres\0\0"


class PostgresUser(TcpUser):
    """Asks for a row, by the simple query protocol."""

    framing = Several(Counted(head=1, inclusive=True), last=b"Z|E.*FATAL")

    def on_connect(self) -> None:
        hello = Wire((len(HELLO) + 4).to_bytes(4, "big") + HELLO)
        self.client.request(hello, name="LOGIN", expect=re.compile(rb"^R\0\0\0\0"))

    @task
    def query(self) -> None:
        self.client.request(b"QSELECT 6 * 7\0", name="SELECT", expect=lambda reply: b"\x0242C" in reply)
