"""FTP, with a data connection for each file: ``locust -f loadtest/examples/ftp_user.py --host tcp://127.0.0.1:21``."""

import re

from locust import task

from loadtest.framing import Lines, UntilClose
from loadtest.tcp_user import Prefix, TcpUser


class FtpUser(TcpUser):
    framing = Lines(rb"\d{3}( |$)")

    def on_connect(self) -> None:
        self.client.receive(name="GREETING", expect=Prefix("220"))
        self.client.request("USER load", name="USER", expect=Prefix("331"))
        self.client.request("PASS secret", name="PASS", expect=Prefix("230"))

    @task
    def fetch(self) -> None:
        where = re.findall(r"\d+", self.client.request("PASV", name="PASV", expect=Prefix("227")).text[4:])
        port = 256 * int(where[4]) + int(where[5])
        with (
            self.client.transaction("fetch"),
            self.connect(f"127.0.0.1:{port}", UntilClose(), "data") as data,
        ):
            self.client.request("RETR file", name="RETR", until=Lines(rb"[2-5]\d\d "), expect=Prefix("1"))
            data.receive(name="DATA", expect=b"0123456789" * 1000)
