"""``python -m chat_gevent`` is the ``chat-gevent`` command."""

import sys

from chat_gevent.command.main import main

sys.exit(main())
