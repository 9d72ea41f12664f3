"""uvloop, asyncio's loop on libuv in Cython, with the same Protocol as ``asyncio_protocol``."""

from __future__ import annotations

import uvloop

from benchmarks.measure.servers.asyncio_protocol import serve
from benchmarks.measure.servers.common import options

if __name__ == "__main__":
    uvloop.run(serve(options(__doc__)))
