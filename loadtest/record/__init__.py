"""The recorder: a proxy between a real client and a real server that writes a locustfile of what passed.

================= ==================================================================================
``command``       ``python -m loadtest record``: options, signals, the file that is written
``tape``          what is kept of each connection, within bounds
``proxy``         relays bytes in both directions, and never changes one
``turns``         who spoke when: the tape as turns of client and server
``framings``      which framing fits the requests, and which the replies
``secrets``       what ``--mask`` and ``--unique`` find, and what stands for it
``expectation``   what is constant in a reply, as a regular expression
``conversation``  the turns as greeting, requests, one-way messages and pushes
``locustfile``    the Python text
``guard``         whether a masked value still stands in that text
================= ==================================================================================

Each of these imports only what stands above it, but for ``command``, which uses them all.
"""
