"""uvloop, asyncio's loop on libuv in Cython, with the same Protocol as ``asyncio_protocol``."""

from __future__ import annotations

import uvloop

from benchmarks.servers.asyncio_protocol import serve
from benchmarks.servers.common import options

if __name__ == "__main__":
    uvloop.run(serve(options(__doc__)))
