"""MQTT: ``locust -f loadtest/examples/mqtt_user.py --host tcp://127.0.0.1:1883``."""

from locust import task

from loadtest.framing import Varint
from loadtest.tcp_user import Prefix, TcpUser

NEWS = b"\0\4news"


class MqttUser(TcpUser):
    """Publishes to a topic that all subscribe to; NEWS is how long a message took from one to the other."""

    framing = Varint(head=1)

    def on_connect(self) -> None:
        name = b"load-%09d" % self.number
        self.client.request(b"\x10\0\4MQTT\4\2\0\x3c\0\x0e" + name, name="LOGIN", expect=b"\x20\0\0")
        self.client.push(lambda message: None, name="NEWS", match=rb"\x30")
        self.client.request(b"\x82\0\1" + NEWS + b"\0", name="SUBSCRIBE", expect=Prefix(b"\x90\0\1"))

    @task
    def publish(self) -> None:
        self.client.request(
            b"\x32" + NEWS + b"\0\2" + self.client.stamp(), name="PUBLISH", expect=b"\x40\0\2"
        )
