"""memcached: ``locust -f loadtest/examples/memcached_user.py --host tcp://127.0.0.1:11211``."""

from locust import task

from loadtest.framing import TextLength
from loadtest.tcp_user import TcpUser


class MemcachedUser(TcpUser):
    """Sets a value and gets it back."""

    framing = TextLength(rb"VALUE \S+ \d+ (\d+)", more=True)

    @task
    def set_and_get(self) -> None:
        """Each user has a key of its own."""
        key = f"user:{self.number}"
        self.client.request(f"set {key} 0 0 4\r\nblue", name="SET", expect="STORED")
        self.client.request(f"get {key}", name="GET", expect=f"VALUE {key} 0 4\r\nblue\r\nEND")
