"""One operating-system thread per client, blocking ``recv(1024)``: what people write first.

Whatever one ``recv(1024)`` returns is a message, decoded and confirmed with ``send``. So it has no framing,
and its reply ends as the message did. TCP_NODELAY is not set, nothing is caught but a client that has gone.
"""

from __future__ import annotations

import socket
import threading

from benchmarks.measure.servers.common import options, ready

clients: list[socket.socket] = []


def handle_client(client_socket: socket.socket, client_address: tuple[str, int]) -> None:
    """Confirm what one client sends until it leaves."""
    clients.append(client_socket)
    try:
        while True:
            message = client_socket.recv(1024).decode("utf-8")
            if not message or message.lower() == "/exit":
                break
            client_socket.send(f"Received: {message}".encode())
    except ConnectionError:
        pass
    clients.remove(client_socket)
    client_socket.close()


def main() -> None:
    """Accept clients, a thread for each, until the process is ended."""
    given = options(__doc__)
    server_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server_socket.bind((given.host, given.port))
    server_socket.listen(4096)
    ready(server_socket.getsockname())
    while True:
        client_socket, client_address = server_socket.accept()
        threading.Thread(target=handle_client, args=(client_socket, client_address), daemon=True).start()


if __name__ == "__main__":
    main()
