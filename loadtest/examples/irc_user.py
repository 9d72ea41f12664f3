"""IRC: ``locust -f loadtest/examples/irc_user.py --host tcp://127.0.0.1:6667 --think-time 1-3``."""

from locust import task

from loadtest.framing import Delimiter, Lines
from loadtest.tcp_user import TcpUser


class IrcUser(TcpUser):
    """Talks in a channel and hears the others; TALK is how long a line took from one to the other."""

    framing = Delimiter(b"\r\n")

    def on_connect(self) -> None:
        self.client.push(self.answer, name="TALK", match=rb"PING |:\S+ PRIVMSG ")
        login = f"NICK load{self.number}\r\nUSER load 0 * :load"
        self.client.request(login, name="LOGIN", until=Lines(rb":\S+ (376|422) "))
        self.client.request("JOIN #load", name="JOIN", until=Lines(rb":\S+ 366 "))

    def answer(self, line: bytes) -> bytes | None:
        return line.replace(b"PING", b"PONG", 1) if line.startswith(b"PING ") else None

    @task
    def say(self) -> None:
        self.client.send(b"PRIVMSG #load :" + self.client.stamp(), name="SAY")
