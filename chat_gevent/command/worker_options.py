"""What gunicorn's own options mean for a :class:`chat_gevent.workers.ChatWorker`.

gunicorn has options for HTTP, and for TLS and proxies in front of HTTP. An option that was given and would do
nothing here is refused at the start, because who gave it relies on it. The others are honoured:

======================  ==========================================================================
certfile, keyfile       the certificate
cert_reqs, ca_certs     0: no client is asked for a certificate; 1: one that is shown must be
                        signed by one of these CAs; 2: each client must show such a one
ciphers                 OpenSSL's list, for TLS 1.2
ssl_version             TLS or TLS_SERVER: 1.2 and later; TLSv1_2: only that
ssl_context             the hook makes the context; its default is made of the options above
do_handshake_on_connect the handshake always comes first, and holds up no other client
suppress_ragged_eofs    a stream that is cut off is never taken for a whole one
proxy_protocol          auto: connections from proxy_allow_ips begin with a header, v1 or v2
worker_connections      most clients of a worker, where ``CHAT_GEVENT_MAX_CONNECTIONS`` sets none
======================  ==========================================================================
"""

from __future__ import annotations

import os
import shlex
import ssl
import sys
from typing import Any, Final

from chat_gevent import tls
from chat_gevent.command.config import ConfigError
from chat_gevent.errors import CertificateError
from chat_gevent.outgoing import Opening
from chat_gevent.proxy_protocol import Proxies

USELESS: Final = {
    "max_requests": "clients stay connected: a worker is not replaced after a number of messages",
    "max_requests_jitter": "clients stay connected: a worker is not replaced after a number of messages",
    "threads": "a worker serves its clients in one thread",
    "accesslog": "it is a log of HTTP requests",
    "pre_request": "it is called for HTTP requests",
    "post_request": "it is called for HTTP requests",
}
"""Options that do nothing here, and why."""

EVERYBODY: Final = ("0.0.0.0/0", "::/0")
"""What ``*`` means as an address of proxies."""

SECURITY: Final = ("cert_reqs", "ca_certs", "ciphers", "ssl_version", "ssl_context")
"""Options that mean nothing where there is no certificate: clients would be served in the clear."""


def check(cfg: Any) -> None:
    """Raise ConfigError for an option that can't be honoured. ``cfg`` is gunicorn's configuration."""
    for name, why in USELESS.items():
        if _given(cfg, name):
            raise ConfigError(f"gunicorn's {name} does nothing here: {why}")
    if getattr(cfg, "protocol", "http") != "http":
        raise ConfigError(f"gunicorn's protocol = {cfg.protocol} does nothing here: the handler has its own")
    if not cfg.certfile:
        for name in ("keyfile", *SECURITY):
            if _given(cfg, name):
                raise ConfigError(
                    f"gunicorn's {name} needs certfile beside it: clients are served in the clear"
                )
    if cfg.cert_reqs not in (ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED):
        raise ConfigError(f"gunicorn's cert_reqs = {cfg.cert_reqs}: must be 0, 1 or 2")
    if cfg.cert_reqs and not cfg.ca_certs:
        raise ConfigError(
            f"gunicorn's cert_reqs = {cfg.cert_reqs} needs ca_certs beside it: there is no CA to ask"
        )
    if cfg.ca_certs and not cfg.cert_reqs:
        raise ConfigError(
            "gunicorn's ca_certs needs cert_reqs = 2 (or 1) beside it: nobody is asked for anything"
        )
    name = _ssl_version(cfg)
    if name not in ("TLS", "SSLv23", "TLS_SERVER", "TLSv1_2"):
        raise ConfigError(f"gunicorn's ssl_version = {name}: must be TLS, TLS_SERVER or TLSv1_2")
    if cfg.proxy_protocol in ("v1", "v2"):
        mode = cfg.proxy_protocol
        raise ConfigError(f"gunicorn's proxy_protocol = {mode}: must be auto; both versions are taken")


def opening(cfg: Any) -> Opening | None:
    """The TLS handshake that the options ask for, None without a certificate.

    Raises ConfigError, CertificateError.
    """
    if not cfg.certfile:
        return None
    if _given(cfg, "ssl_context"):
        context = cfg.ssl_context(cfg, lambda: _context(cfg))
        if not isinstance(context, ssl.SSLContext):
            raise ConfigError(f"gunicorn's ssl_context hook returned {context!r}: must be an SSLContext")
    else:
        context = _context(cfg)
    return tls.opening(context, server_side=True)


def _context(cfg: Any) -> ssl.SSLContext:
    context = tls.Certificates(cfg.certfile, cfg.keyfile or "", cfg.ca_certs or "").context
    context.verify_mode = ssl.VerifyMode(cfg.cert_reqs)
    if _ssl_version(cfg) == "TLSv1_2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if cfg.ciphers:
        try:
            context.set_ciphers(cfg.ciphers)
        except ssl.SSLError as error:
            raise CertificateError(
                f"ciphers {cfg.ciphers}: {getattr(error, 'reason', None) or error.args[0]}"
            ) from None
    return context


def _ssl_version(cfg: Any) -> str:
    """The option's name without ``PROTOCOL_``; gunicorn keeps a name or a number, as it was given."""
    given = cfg.ssl_version
    return str(given if isinstance(given, str) else ssl._SSLMethod(given).name).removeprefix("PROTOCOL_")


def proxies(cfg: Any) -> Proxies | None:
    """Whose connections begin with a PROXY header; those of UNIX sockets always do, as gunicorn has it."""
    if cfg.proxy_protocol in ("off", False, None):
        return None
    allowed = set(cfg.proxy_allow_ips)
    return Proxies({*(EVERYBODY if "*" in allowed else ()), *(allowed - {"*"}), "unix"})


def worker_connections(cfg: Any) -> int:
    """Most clients of a worker; 0 where that was not given.

    Its default, 1,000, counts where it stands on the command line; in a file it can't be told from the
    default.
    """
    words = [*sys.argv, *shlex.split(os.environ.get("GUNICORN_CMD_ARGS", ""))]
    named = any(each.startswith("--worker-connections") for each in words)
    return int(cfg.worker_connections) if named or _given(cfg, "worker_connections") else 0


def _given(cfg: Any, name: str) -> bool:
    """Whether an option has another value than its default."""
    option = cfg.settings.get(name)  # an older gunicorn may not have it
    return option is not None and option.get() != option.default
