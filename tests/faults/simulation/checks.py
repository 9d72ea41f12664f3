"""What must hold in a world: after each step, where nothing more can happen at this time, and at the end.

Each function raises :class:`Broken`, which says what does not hold.
"""

from __future__ import annotations

from typing import Any

from chat_gevent.framing import Auto, Line
from chat_gevent.state import BUSY, CLOSING, OPENING, QUEUED, WAITING
from tests.faults.simulation.model import (
    FAILED,
    LAST_WORDS,
    TOLD,
    Due,
    due,
    is_cut,
    pushes_in,
    text_of,
    without_pushes,
)
from tests.faults.simulation.service import Known
from tests.faults.simulation.world import SLOTS, World

PUSH_BYTES = 16
"""More than any push of a world has."""

ORDERLY = frozenset(
    ("eof", "exit", "message-too-long", "idle-timeout", "handler", "shutting-down", "server-busy")
)
"""The reasons with which all that was read before is answered."""


TO_THE_END = frozenset(("eof", "exit", "handler", "shutting-down", "message-too-long"))
"""The reasons with which all that was due is sent, however slow the client is."""


class Broken(AssertionError):
    """Something that must hold does not; ``what`` is the same text for the same kind of problem."""

    def __init__(self, what: str, details: str = "") -> None:
        super().__init__(f"{what} {details}".rstrip())
        self.what = what


def step(world: World) -> None:
    """After each step: nothing was misused, and no count is out of its bounds."""
    if world.raised or world.kernel.violations:
        raise Broken(world.problems[0])
    core = world.core
    if not 0 <= core.queued <= world.settings.outbox_total_bytes + SLOTS * PUSH_BYTES:
        raise Broken("bytes of pushes out of bounds", str(core.queued))
    if core.input.held < 0 or core.registry.live < 0:
        raise Broken("a count is below zero")


def settle(world: World, rounds: int = 3000) -> None:
    """Let all happen that can happen at this time; nothing may go on for ever."""
    turn = world.loop.turn
    for _ in range(rounds):
        if not turn():
            return
        step(world)
    raise Broken("the loop never comes to rest")


def quiet(world: World) -> None:
    """Where nothing more can happen at this time: nobody was left over."""
    settle(world)
    step(world)
    core, engine = world.core, world.core.engine
    held = queued = 0
    living = world.living()
    if core.registry.live != len(living):
        raise Broken("the registry counts others than there are", f"{core.registry.live} {len(living)}")
    for what in ("_called", "_pushed", "_queue"):
        if any(each.fd >= 0 for each in getattr(engine, what)):
            raise Broken(f"the engine has something left in {what}")
    if core.broadcasts.running:
        raise Broken("a broadcast goes on without a timer")
    present = [connection for _, connection in living]
    for what, kept in (("_without_room", engine._without_room), ("waited_for", core.waited_for)):
        if any(each not in present for each in kept):
            raise Broken(f"{what} keeps a connection that is gone")
    for known, connection in living:
        held += len(connection.kept)
        if connection.client is not None:
            owed, socket = connection.client._queued, known.peer.socket
            queued += owed
            if not 0 <= owed <= sum(map(len, connection.outbox or ())) and not socket.dead:
                raise Broken("bytes of pushes are counted that are not due", str(owed))
            if owed > world.settings.outbox_bytes + PUSH_BYTES:
                raise Broken("an outbox is beyond its bound", str(owed))
        _rests(world, known, connection)
    if held != core.input.held:
        raise Broken("unfinished messages are counted wrongly", f"{core.input.held}, there are {held}")
    if queued != core.queued:
        raise Broken("pushes are counted wrongly", f"{core.queued}, there are {queued}")


def _rests(world: World, known: Known, connection: Any) -> None:
    """One connection, where nothing more can happen at this time."""
    socket, state, greenlet = known.peer.socket, connection.state, connection.greenlet
    engine = world.core.engine
    waits_for_room = any(each.file is socket for each in world.loop.ios)
    if state is QUEUED:
        raise Broken("a connection waits for its turn for ever")
    if state is BUSY or state is OPENING:
        if greenlet in world.blocked or waits_for_room:
            return
        if state is BUSY and world.settings.message_rate and greenlet is not None:
            return
        raise Broken("a connection is busy with nothing", state.name)
    if state is WAITING and type(connection.framing) is Auto:
        return
    if waits_for_room or greenlet in world.blocked:
        return
    if state is WAITING and connection.waiter is None:
        raise Broken("a connection waits, and nobody is to wake it")
    if socket.incoming:
        raise Broken("a connection sleeps on input", f"{state.name} {bytes(socket.incoming[:40])!r}")
    if socket.dead or ((socket.input_ended or socket.read_shut) and not socket.end_was_read):
        raise Broken("a connection sleeps on the end of its stream", state.name)
    if state is CLOSING:
        return
    if connection.input is not None:
        raise Broken("a connection sleeps on what was read")
    if connection.outbox:
        if socket.is_writable():
            raise Broken("a connection sleeps on output", state.name)
        if greenlet is None and connection not in engine._without_room:
            raise Broken("nobody waits for room for output")
        return
    if connection.leaving:
        raise Broken("a connection that is to leave sleeps", str(connection.leaving))
    conversation(world, known, connection, complete=True)


def conversation(world: World, known: Known, connection: Any, complete: bool) -> None:
    """What was sent to a client is what is due for what was read of it; all of it, if ``complete``."""
    socket = known.peer.socket
    taken = bytes(socket.taken if known.read_at_end < 0 else socket.taken[: known.read_at_end])
    produced = bytes(socket.produced)
    _pushes(world, known, produced, complete)
    if complete and known.reason in TO_THE_END and is_cut(produced, world.plan.kind not in ("auto", "chunk")):
        raise Broken("a message was cut off at an end that was orderly", repr(produced[-20:]))
    if world.plan.kind in ("auto", "chunk"):
        text, sent = text_of(produced), taken.replace(b"\n", b"")
        whole = taken[: taken.rfind(b"\n") + 1] if type(connection.framing) is Line else taken
        unfinished = 0 if known.reason == "eof" else 3 + len(taken) - len(whole)
        if not sent.startswith(text) and not _cut_short(known, sent, text):
            raise Broken("what came back is not what was sent", f"{sent!r} {text!r}")
        if complete and len(text) < len(sent) - unfinished and known.reason != "server-busy":
            raise Broken("something is not answered", f"{sent!r} {text!r}")
        return
    limit, ended = world.settings.max_message_bytes, known.had_ended
    try:
        _lines(world, known, connection, produced, due(taken, ended, limit, world.words), complete)
    except Broken:
        if not (
            world.words and (world.draining or known.closed_from_outside or known.reason == "server-busy")
        ):
            raise
        _lines(world, known, connection, produced, due(taken, ended, limit, True, False), complete)


def _lines(
    world: World, known: Known, connection: Any, produced: bytes, expected: Due, complete: bool
) -> None:
    replies = without_pushes(produced)
    number = 0
    for number, reply in enumerate(replies):
        if number < len(expected.replies) and (
            reply == expected.replies[number] or (known.killed and reply == FAILED)
        ):
            continue
        if replies[number + 1 :] in ([], [LAST_WORDS]) and _is_an_end(world, known, reply):
            if (
                complete
                and number < len(expected.replies)
                and known.reason not in ("refused", "handler-failed")
            ):
                raise Broken(
                    "a client was sent away before all was answered", f"{reply!r} {expected.replies}"
                )
            return
        raise Broken("a wrong reply", f"{replies[number:][:3]} for {expected.replies[number:][:3]}")
    if complete and len(replies) < len(expected.replies):
        raise Broken("something is not answered", f"{expected.replies[len(replies) :][:3]}")
    if complete and not known.killed and world.words is False and connection.messages != expected.messages:
        raise Broken("messages are counted wrongly", f"{connection.messages} {expected.messages}")
    if complete and expected.ending and known.reason != expected.ending and known.read_at_end < 0:
        raise Broken("a conversation goes on beyond its end", expected.ending)


def _cut_short(known: Known, sent: bytes, text: bytes) -> bool:
    """Whether what came back ends within what the server adds; after an end that was not orderly."""
    if not known.reason or known.reason in ("eof", "exit", "message-too-long", "handler"):
        return False
    return any(
        text.endswith(tail[:size]) and sent.startswith(text[:-size])
        for tail in (b"Received: ", LAST_WORDS, *TOLD.values())
        for size in range(1, len(tail))
    )


def _is_an_end(world: World, known: Known, reply: bytes) -> bool:
    """Whether a client may be told this at its end."""
    if reply == LAST_WORDS:
        return known.closed_from_outside
    code = next((code for code, told in TOLD.items() if told == reply), "")
    return {
        "idle-timeout": world.loop.time - known.born >= world.settings.idle_timeout,
        "shutting-down": world.draining,
        "server-busy": bool(world.settings.input_total_bytes),
        "server-full": world.plan.most < SLOTS,
        "address-full": bool(world.settings.max_connections_per_address),
        "refused": known.greeting == "refuse",
        "handler-failed": known.greeting == "fail" or known.killed,
    }.get(code, False)


def _pushes(world: World, known: Known, produced: bytes, complete: bool) -> None:
    got = pushes_in(produced)
    if not complete or world.core.registry.dropped:
        offered = iter(known.offered)
        if all(each in offered for each in got):
            return
    elif got == known.offered or (known.reason and known.offered[: len(got)] == got):
        return
    raise Broken("pushes are missing, doubled or out of order", f"{got} of {known.offered}")


def closed(world: World, known: Known) -> None:
    """A connection that is closed: for a reason that there was, and after what was due."""
    reason, socket = known.reason, known.peer.socket
    happened = {
        "eof": socket.input_ended or socket.read_shut,
        "exit": True,
        "message-too-long": True,
        "idle-timeout": world.loop.time - known.born >= world.settings.idle_timeout,
        "handshake-timeout": world.loop.time - known.born >= world.settings.handshake_timeout,
        "write-timeout": bool(world.settings.min_read_rate)
        or world.loop.time - max(known.born, known.took) >= world.settings.write_timeout,
        "slow": bool(known.offered) or world.numbers,
        "reset": known.peer.faulted,
        "unused": known.peer.faulted,
        "lost": known.peer.faulted,
        "killed": known.killed or world.plan.spawn,
        "handler": world.words or known.closed_from_outside,
        "shutting-down": world.draining,
        "cut-off": world.hurried or world.loop.time >= world.drain_ends,
        "server-full": True,
        "address-full": True,
        "refused": known.greeting == "refuse",
        "handler-failed": known.greeting == "fail" or known.killed,
        "server-busy": True,
    }
    if not happened.get(reason, False):
        raise Broken("a connection was closed for a reason that there was not", reason)
    connection = known.connection
    complete = reason in ORDERLY and not (
        known.killed or known.closed_from_outside or known.peer.faulted or socket.dead
    )
    conversation(world, known, connection, complete)
    if known.told != known.greeted:
        raise Broken(
            "hooks are not paired", f"{known.greeted} connected, {known.told} disconnected: {reason}"
        )


def end(world: World) -> None:
    """Bring a world to its end, and check that nothing is left."""
    world.opened = True
    for known in world.all:
        for _ in range(4):
            known.gate.release()
        known.peer.socket.armed.clear()
    world.kernel.refuses_accepts = world.kernel.refuses_watches = 0
    quiet(world)
    for _ in range(400):
        for known in world.all:
            known.peer.read(1 << 20)
        settle(world)
        if all(each.reason or each.peer.socket.closed for each in world.all):
            break
        for known in world.all:
            known.peer.end()
        settle(world)
        world.loop.time += 0.3
    else:
        raise Broken("a client that ended its stream stays for ever")
    world.do_drain(1.0)
    for _ in range(100):
        settle(world)
        if world.drained:
            break
        world.loop.time += 0.3
    else:
        raise Broken("a drain does not end")
    settle(world)
    for known in world.all:
        if known.reason:
            closed(world, known)
    _nothing_is_left(world)


def _nothing_is_left(world: World) -> None:
    core, engine, loop = world.core, world.core.engine, world.loop
    registry = core.registry
    left: dict[str, Any] = {
        "connections": engine.all(),
        "live": registry.live,
        "refusals": registry.refusals,
        "bytes of unfinished messages": core.input.held,
        "bytes of pushes": core.queued,
        "those without room": engine._without_room,
        "those waited for": core.waited_for,
        "those with something due": engine._pushed,
        "those who flooded": [each for each in engine._queue if each.fd >= 0],
        "those called": engine._called,
        "hooks under way": core.telling,
        "leased greenlets": engine.leases.leased,
        "workers": engine.leases._workers,
        "blocked greenlets": world.blocked,
        "addresses": getattr(registry.places, "_taken", None),
        "broadcasts": core.broadcasts.running,
        "descriptors": world.kernel.files,
        "watchers": loop.ios,
        "timers": loop.timers,
    }
    for what, there in left.items():
        if there:
            raise Broken(f"left at the end: {what}", repr(there)[:200])
    counted = sum(1 for each in world.all if each.reason)
    if sum(registry.closed.values()) != counted:
        raise Broken("connections are counted wrongly at their end")
    sent = sum(len(each.peer.socket.produced) for each in world.all if each.reason)
    read = sum(len(each.peer.socket.taken) for each in world.all if each.reason)
    if registry.past_sent != sent:
        raise Broken("bytes sent are counted wrongly", f"{registry.past_sent}, there were {sent}")
    if registry.past_received > read:
        raise Broken("bytes received are counted wrongly", f"{registry.past_received}, there were {read}")
