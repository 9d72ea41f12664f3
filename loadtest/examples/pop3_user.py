"""POP3: ``locust -f loadtest/examples/pop3_user.py --host tcp://127.0.0.1:110``."""

from locust import task

from loadtest.framing import Delimiter, Dot
from loadtest.tcp_user import Prefix, TcpUser

OK = Prefix("+OK")


class Pop3User(TcpUser):
    """Logs in to a mailbox and reads its first mail."""

    framing = Delimiter(b"\r\n")

    def on_connect(self) -> None:
        self.client.receive(name="GREETING", expect=OK)
        self.client.request(f"USER load{self.number}", name="USER", expect=OK)
        self.client.request("PASS secret", name="PASS", expect=OK)

    @task
    def read(self) -> None:
        self.client.request("STAT", name="STAT", expect=Prefix("+OK 1 "))
        self.client.request("LIST", name="LIST", until=Dot(), expect=OK)
        self.client.request("RETR 1", name="RETR", until=Dot(), expect=OK)
