"""NATS: ``locust -f loadtest/examples/nats_user.py --host tcp://127.0.0.1:4222``."""

from locust import task

from loadtest.framing import TextLength
from loadtest.tcp_user import Prefix, TcpUser


class NatsUser(TcpUser):
    """Publishes to a subject that all subscribe to; NEWS is how long a message took from one to the other."""

    framing = TextLength(rb"MSG (?:\S+ ){2,3}(\d+)")

    def on_connect(self) -> None:
        self.client.receive(name="INFO", expect=Prefix("INFO "))
        self.client.push(lambda line: b"PONG" if line == b"PING" else None, name="NEWS", match=rb"MSG |PING")
        self.client.request('CONNECT {"verbose":true}', name="LOGIN", expect="+OK")
        self.client.request("SUB news 1", name="SUBSCRIBE", expect="+OK")

    @task
    def publish(self) -> None:
        news = self.client.stamp()
        self.client.request(b"PUB news %d\r\n%b" % (len(news), news), name="PUBLISH", expect="+OK")
