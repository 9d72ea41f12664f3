"""What the ``chat-gevent`` command runs: the command line, the process that serves, and its admin pages.

It uses the library; nothing in the library imports it.
"""
