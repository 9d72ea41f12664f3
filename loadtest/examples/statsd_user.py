"""statsd over TCP: ``locust -f loadtest/examples/statsd_user.py --host tcp://127.0.0.1:8125``."""

from locust import task

from loadtest.framing import Line
from loadtest.tcp_user import TcpUser


class StatsdUser(TcpUser):
    """Sends metrics, which have no reply."""

    framing = Line()

    @task
    def count(self) -> None:
        """One of a counter and one of a timer."""
        self.client.send("requests:1|c", name="COUNTER")
        self.client.send("latency:12|ms", name="TIMER")
