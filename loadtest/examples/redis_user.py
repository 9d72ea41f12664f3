"""Redis: ``locust -f loadtest/examples/redis_user.py --host tcp://127.0.0.1:6379``."""

from locust import task

from loadtest.framing import Resp
from loadtest.tcp_user import TcpUser


class RedisUser(TcpUser):
    """Sets a value and gets it back."""

    framing = Resp()

    @task
    def set_and_get(self) -> None:
        """Each user has a key of its own."""
        self.client.request(f"SET user:{self.number} blue", name="SET", expect="+OK")
        self.client.request(f"GET user:{self.number}", name="GET", expect="$4\r\nblue")
