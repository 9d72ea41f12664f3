"""A gevent server that confirms each message of each client, and parks the clients that say nothing."""

__version__ = "0.1.0"
