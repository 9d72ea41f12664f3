"""A socket client without Locust: addresses, connections with and without TLS, and the messages on them."""
