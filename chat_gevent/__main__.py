"""``python -m chat_gevent`` is the ``chat-gevent`` command.

It is loaded by name: no import statement of the library names it.
"""

import sys
from importlib import import_module

sys.exit(import_module("chat_gevent.command.main").main())
