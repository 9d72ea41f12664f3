"""SMTP with STARTTLS: ``locust -f loadtest/examples/smtp_user.py --host tcp://HOST:25 --tls-ca ca.pem``."""

from locust import task

from loadtest.framing import Lines
from loadtest.tcp_user import Prefix, TcpUser

STEPS = ("MAIL FROM:<a@load.test>", "RCPT TO:<b@load.test>", "DATA", "Subject: x\r\n\r\nhello\r\n.")


class SmtpUser(TcpUser):
    framing = Lines(rb"\d{3}( |$)")

    def on_connect(self) -> None:
        self.client.receive(name="GREETING", expect=Prefix("220"))
        self.client.request("EHLO load.test", name="EHLO", expect=Prefix("250"))
        self.client.request("STARTTLS", name="STARTTLS", expect=Prefix("220"))
        self.client.start_tls()
        self.client.request("EHLO load.test", name="EHLO", expect=Prefix("250"))

    @task
    def mail(self) -> None:
        with self.client.transaction("mail"):
            for step in STEPS:
                self.client.request(step, name=step[:4], expect=Prefix("3" if step == "DATA" else "2"))
