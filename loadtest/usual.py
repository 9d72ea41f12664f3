"""What ``python -m loadtest --help`` shows: the options that most people want, on one screen.

``--help-all`` shows Locust's options and ours, more than 200 lines. Tests hold this text to 40 lines
of 80 columns, and each option to one that there is.
"""

from __future__ import annotations

from typing import Final

HELP: Final = """\
usage: python -m loadtest --host tcp://HOST:PORT [OPTION ...]
       python -m loadtest record ...    make a locustfile of a real conversation
Load a TCP server with Locust, and check every reply.

the load:
  -H, --host URL            tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH
  -u, --users N             users at once (default: 1)
  -r, --spawn-rate N        users started a second (default: 1)
  -t, --run-time TIME       30s, 5m, 1h (default: until Ctrl-C)
  --headless                no web page: begin at once, end by itself
  -f, --locustfile FILE     a conversation of your own (default: confirmations)
  --processes N             worker processes; -1: one for each core

what is sent:
  --framing FRAMING         line, chunk, delimiter:TEXT, length:BYTES
                            (default: line)
  --message-size BYTES      of a message (default: 32)
  --rate RATE               messages a second on a schedule: 200, or 20/user
                            (default: as fast as replies come)
  --think-time SECONDS      between reply and next message (default: 0)
  --hold SECONDS            hold connections, one message in so many seconds
  --shape SHAPE             ramp, steps, spike or soak (default: none)

the outcome:
  --report FILE.json        for python -m benchmarks compare
  --report-html FILE.html   the same as a page
  --fail-if CONDITION       'p99>50ms', 'errors>0.1%': exit with status 3

example, beside chat-gevent serve:
  python -m loadtest --host tcp://127.0.0.1:12345 --headless -u 100 -t 10s

--help-all shows all options, Locust's among them. Status 1: a request failed.
"""
