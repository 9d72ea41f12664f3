"""HAProxy or nginx that terminates TLS in front of ``chat-gevent serve``, as one server to be measured::

    T='python -m benchmarks.measure.servers.terminator'
    python -m benchmarks run memory --tls 1 --connections 9000 --servers chat_gevent \\
        --server "haproxy=$T haproxy {port} {certificate} {key}"

The server behind listens on a UNIX socket. A terminator has two descriptors for each client, so that a
process that may open 20,000 has less than 10,000 clients. Both have one process with one thread, as the
server behind them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from getpass import getuser
from pathlib import Path
from typing import Final

from benchmarks.measure.launch import python
from chat_gevent.files import raise_file_limit

HAPROXY: Final = """\
global
    nbthread 1
    maxconn {clients}
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen chat
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem backlog 4096
    server chat unix@{folder}/chat.sock
"""
NGINX: Final = """\
load_module {module};
user {user};
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {files}; }}
stream {{
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_certificate {folder}/both.pem;
        ssl_certificate_key {folder}/both.pem;
        proxy_timeout 1h;
        proxy_pass unix:{folder}/chat.sock;
    }}
}}
"""
MODULE: Final = "/usr/lib/nginx/modules/ngx_stream_module.so"
"""Where Debian has it."""


def main(arguments: Sequence[str]) -> int:
    """Run the terminator and the server until SIGTERM; the status is the terminator's."""
    if len(arguments) != 4 or arguments[0] not in ("haproxy", "nginx"):
        print(__doc__, file=sys.stderr)
        return 2
    name, port, certificate, key = arguments
    files = raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="terminator-") as text:
        folder = Path(text)
        (folder / "both.pem").write_text(Path(certificate).read_text() + Path(key).read_text())
        config = folder / f"{name}.conf"
        template, command = HAPROXY, ["haproxy", "-db", "-f", str(config)]
        if name == "nginx":
            template, command = NGINX, ["nginx", "-e", "stderr", "-p", text, "-c", str(config)]
        config.write_text(
            template.format(
                folder=folder, port=port, files=files, clients=files // 2 - 100, module=MODULE, user=getuser()
            )
        )
        served = python("-m", "chat_gevent", "serve", "--listen", f"unix://{folder}/chat.sock")
        with subprocess.Popen(served, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout
                if not server.stdout.readline().startswith(b"ready "):
                    return 1
                with subprocess.Popen(command) as terminator:
                    signal.signal(signal.SIGTERM, lambda *_: terminator.terminate())
                    return terminator.wait()
            finally:
                server.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
