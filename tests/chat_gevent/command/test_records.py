"""Records in shared memory: whole or not at all, whatever happens to the writer."""

from __future__ import annotations

import mmap
import os
import signal

import pytest

from chat_gevent.command.records import Record


def test_the_last_record_is_read() -> None:
    """Each write replaces what was there, of any size that has room; the number counts them."""
    memory = memoryview(bytearray(256))
    record = Record(memory)
    assert record.read() == (0, b"")
    for number, data in enumerate((b"one", b"", b"x" * record.room, b"four"), 1):
        record.write(data)
        assert record.read() == Record(memory).read() == (number, data)
    with pytest.raises(ValueError, match="room for 112"):
        record.write(b"x" * (record.room + 1))
    assert record.read() == (4, b"four")
    record.clear()
    assert record.read() == (0, b"")
    record.write(b"anew")
    assert record.read() == (1, b"anew")


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_write_that_is_torn_anywhere_leaves_the_one_before(writes: int) -> None:
    """Cut off after any byte of data and header, in their order, the record is the old one or the new one."""
    for cut in range(16 + 40 + 1):
        memory = bytearray(256)
        record = Record(memoryview(memory))
        for number in range(1, writes + 1):
            record.write(b"%d" % number * 30)
        before, old = record.read(), bytes(memory)
        record.write(b"N" * 40)
        place = 128 * ((writes + 1) % 2)
        new = bytes(memory)
        torn = bytearray(old)
        data = min(cut, 40)
        torn[place + 16 : place + 16 + data] = new[place + 16 : place + 16 + data]
        torn[place : place + cut - data] = new[place : place + cut - data]
        found = Record(memoryview(torn)).read()
        assert found in (before, (writes + 1, b"N" * 40))
        assert (found != before) == (cut == 56)
        after = Record(memoryview(torn))
        after.write(b"next")
        assert after.read()[1] == b"next"


def test_a_reader_never_sees_parts_of_two_writes() -> None:
    """While another process writes without pause, and after it is killed, each read is whole and no older."""
    memory = mmap.mmap(-1, 2**14)
    record = Record(memoryview(memory))
    pid = os.fork()
    if not pid:
        try:
            number = 0
            while True:
                number += 1
                record.write(b"%08d" % number * (1 + number % 900))
        finally:
            os._exit(1)
    try:
        last, seen = 0, 0
        while seen < 100:
            sequence, data = record.read()
            if sequence:
                assert data == b"%08d" % sequence * (1 + sequence % 900)
            assert sequence >= last
            seen += sequence > last
            last = sequence
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    sequence, data = record.read()
    assert sequence >= last
    assert data == b"%08d" % sequence * (1 + sequence % 900)
