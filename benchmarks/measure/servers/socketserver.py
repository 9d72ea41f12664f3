"""The standard library's socketserver: a thread per client, lines read from a buffered file of the socket."""

from __future__ import annotations

import socketserver

from benchmarks.measure.servers.common import MAX_MESSAGE_BYTES, TOO_LONG, options, ready, reply_to


class Client(socketserver.StreamRequestHandler):
    """One client, in a thread of its own."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Confirm lines until the client leaves."""
        try:
            while line := self.rfile.readline(MAX_MESSAGE_BYTES + 2):
                text = line.removesuffix(b"\n")
                if len(text) > MAX_MESSAGE_BYTES + text.endswith(b"\r"):
                    self.wfile.write(TOO_LONG)
                    return
                reply = reply_to(text)
                if reply is None:
                    return
                self.wfile.write(reply)
        except ConnectionError:
            pass


class Server(socketserver.ThreadingTCPServer):
    """With threads that do not keep the process from ending, and room for a burst of clients."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 4096


def main() -> None:
    """Serve until the process is ended."""
    given = options(__doc__)
    with Server((given.host, given.port), Client) as server:
        ready(server.socket.getsockname())
        server.serve_forever()


if __name__ == "__main__":
    main()
