"""uvloop with the same streams and task per client as ``asyncio_streams``."""

from __future__ import annotations

import uvloop

from benchmarks.measure.servers.asyncio_streams import serve
from benchmarks.measure.servers.common import options

if __name__ == "__main__":
    uvloop.run(serve(options(__doc__)))
