"""whois: ``locust -f loadtest/examples/whois_user.py --host tcp://127.0.0.1:43``."""

from locust import task

from loadtest.framing import UntilClose
from loadtest.tcp_user import Prefix, TcpUser


class WhoisUser(TcpUser):
    """Asks for a domain; the server ends the stream after its answer, so each question has a connection."""

    framing = UntilClose()

    @task
    def ask(self) -> None:
        """A question is a line."""
        self.client.request("example.org\r\n", name="WHOIS", expect=Prefix("Domain Name: example.org"))
