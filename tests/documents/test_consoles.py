"""Every console block of every page runs, and prints what the page shows."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks.made_reports import make
from tests.conftest import require_tool
from tests.documents.consoles import LASTS, PAGES, ROOT, Command, Session, Shorter, commands, matches

LOAD = "locust -f loadtest/locustfile.py --host tcp://127.0.0.1:12345 --headless"
OWN_LOAD = "locust -f locustfile.py --host tcp://127.0.0.1:7000"
PIP = "pip install --dry-run --no-index"
BENCH = "python -m benchmarks"
ONCE = "--connections 50 --seconds 0.2 --warmup 0 --output threads.json"
MANY = "experiment many-connections --connections"
SMALL = "--connections 50 --blocks 3 --seconds 0.1 --warmup 0"
TWENTY_MINUTES = "twenty minutes on a quiet machine"
NETWORK = "would install from the network; this says what it would do"

SHORTER = {
    "make test": Shorter("make --dry-run test", "it is what runs this test"),
    "make quick": Shorter("make --dry-run quick", "a minute of other tests"),
    "make coverage": Shorter("make --dry-run coverage", "it runs all tests"),
    "make check": Shorter("make --dry-run check", "CI runs it beside the tests"),
    "make matrix": Shorter("make --dry-run matrix", "many minutes, and a network"),
    "make matrix-short": Shorter("make --dry-run matrix-short", "minutes, and a network"),
    "make audit": Shorter("make --dry-run audit", "it asks an index, which not every machine can reach"),
    "make mutation": Shorter("make --dry-run mutation", "most of an hour"),
    "make docs": Shorter("make --dry-run docs", "the test of the API pages runs it"),
    "make format": Shorter("make --dry-run format", "it changes the checkout"),
    "pip install .": Shorter(f"{PIP} --no-deps --no-build-isolation .", NETWORK),
    "pip install '.[loadtest]'": Shorter(f"{PIP} --no-deps --no-build-isolation .", NETWORK),
    "pip install -e '.[loadtest]'": Shorter(f"{PIP} --no-deps --no-build-isolation .", NETWORK),
    "pip install '.[redis]'": Shorter(f"{PIP} --no-deps --no-build-isolation .", NETWORK),
    f"{LOAD} -u 500 -r 250 -t 10s --report run.json": (
        Shorter(
            f"{LOAD} -u 20 -r 20 -t 3s --report run.json",
            "ten seconds",
        )
    ),
    f"{LOAD} -u 500 -r 250 -t 10s": Shorter(
        f"{LOAD} -u 20 -r 20 -t 3s",
        "ten seconds",
    ),
    f"{OWN_LOAD}": Shorter(
        f"{OWN_LOAD} --autostart --autoquit 0 -u 1 -t 3s",
        "its page stays until Ctrl-C",
    ),
    f"{OWN_LOAD} --headless -u 100 -r 50 -t 30s --rate 2000 --report run.json": Shorter(
        f"{OWN_LOAD} --headless -u 10 -r 10 -t 3s --rate 200 --report run.json",
        "half a minute",
    ),
    "redis-cli -p 7000": Shorter("redis-cli -p 7000 PING", "is for a person at a terminal", stop=True),
    "locust -f recorded.py --headless -u 10 -r 10 -t 10s": Shorter(
        "locust -f recorded.py --headless -u 10 -r 10 -t 3s", "ten seconds"
    ),
    "export CHAT_GEVENT_BACKPLANE=redis://:PASSWORD@redis.internal:6379": Shorter(
        "export CHAT_GEVENT_BACKPLANE=redis://127.0.0.1:6379", "that machine is not here"
    ),
    f"{BENCH} run confirm --quick": Shorter(
        f"{BENCH} run confirm --quick --servers chat_gevent,threads {SMALL}", "three minutes"
    ),
    f"{BENCH} run confirm --servers chat_gevent,uvloop_protocol --output confirm.json": Shorter(
        f"{BENCH} run confirm --servers chat_gevent,uvloop_protocol,threads --output confirm.json {SMALL}",
        "5,000 clients",
    ),
    f"{BENCH} run confirm --servers threads,chat_gevent --output report.json": Shorter(
        f"{BENCH} run confirm --servers threads,chat_gevent --output report.json {SMALL}", "5,000 clients"
    ),
    f"{BENCH} run confirm --servers chat_gevent@main,chat_gevent --output change.json": Shorter(
        f"{BENCH} run confirm --servers chat_gevent@.,chat_gevent --output change.json {SMALL}",
        "5,000 clients; and a checkout may have no branch main",
    ),
    f"{BENCH} compare confirm.json --baseline go --html confirm.html": Shorter(
        f"{BENCH} compare confirm.json --baseline threads --html confirm.html", "Go may be missing here"
    ),
    f"{BENCH} history DIRECTORY --html history.html": Shorter(
        f"{BENCH} history reports --html history.html", "DIRECTORY stands for one of the reader's"
    ),
    f"{BENCH} experiment verdict-quality measure": Shorter(
        f"{BENCH} experiment verdict-quality measure --runs 20 --limit 1", TWENTY_MINUTES
    ),
    f"{BENCH} experiment verdict-quality coverage": Shorter(
        f"{BENCH} experiment verdict-quality coverage --trials 20", "a minute"
    ),
    f"{BENCH} run confirm --servers threads --blocks 1": Shorter(
        f"{BENCH} run confirm --servers threads --blocks 1 {ONCE}",
        "5,000 clients",
    ),
    f"{BENCH} run confirm --servers threads --blocks 1 --server-cores all": Shorter(
        f"{BENCH} run confirm --servers threads --blocks 1 --server-cores all {ONCE}",
        "5,000 clients",
    ),
    f"{BENCH} {MANY} 3000000 --output benchmarks/results/crowd.json": Shorter(
        f"{BENCH} {MANY} 1000 --output crowd.json", "5 minutes, 16 GiB"
    ),
    f"{BENCH} {MANY} 1000000 --broadcasts 10 --output benchmarks/results/crowd-broadcasts.json": Shorter(
        f"{BENCH} {MANY} 1000 --broadcasts 2 --output crowd-broadcasts.json", "minutes, and 7 GiB"
    ),
    f"{BENCH} experiment faults": Shorter(f"{BENCH} experiment faults ports --scale 0.1", "three minutes"),
    f"{BENCH} experiment faults link memory --scale 0.1": Shorter(
        f"{BENCH} experiment faults memory --scale 0.02", "ten seconds"
    ),
    f"{BENCH} experiment soak": Shorter(
        f"{BENCH} experiment soak --minutes 0.05 --every 0.5", "half an hour"
    ),
    f"{BENCH} experiment storm": Shorter(
        f"{BENCH} experiment storm --clients 50 --rate 500", "18,000 clients"
    ),
    f"{BENCH} experiment storm --clients 40000 --workers 3": Shorter(
        f"{BENCH} experiment storm --clients 60 --workers 3 --rate 500", "40,000 clients"
    ),
    "apt-get install tsung": Shorter("apt-cache show --no-all-versions bash", NETWORK),
    f"{BENCH} experiment tsung": Shorter(f"{BENCH} experiment tsung --help", "needs Tsung, and minutes"),
}
"""Command -> what is run instead where it takes over 10 s, over 1,000 clients, or what is not here."""


def store(session: Session) -> None:
    """A store on port 7000 that speaks the protocol of loadtest's README, and a Redis."""
    redis(session)
    text = (ROOT / "loadtest" / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    (session.folder / "locustfile.py").write_text(code[1])
    program = """
from gevent.server import StreamServer

def serve(client, _):
    kept = {}
    for line in client.makefile("rb"):
        verb, key, *value = line.decode().split()
        kept[key] = value[0] if value else kept.get(key, "")
        client.sendall((kept[key] if verb == "GET" else "OK").encode() + b"\\r\\n")

server = StreamServer(("127.0.0.1", 7000), serve)
server.start()
print("ready tcp://127.0.0.1:7000", flush=True)
server.serve_forever()
"""
    (session.folder / "store.py").write_text(program)
    session.run("python store.py")


def confirmations(session: Session) -> None:
    """A server on the usual port."""
    session.run("chat-gevent serve")


def redis(session: Session) -> None:
    """A Redis on its usual port."""
    require_tool("redis-server")
    session.start("redis-server --save '' --loglevel warning", session.folder / ".redis", keep=True)
    session.run("until redis-cli ping | grep -q PONG; do sleep 0.05; done")


def reports(session: Session) -> None:
    """Reports that the pages compare: two runs, and four of each side; ten in a folder, for a history."""
    names = ["before", "after", *(f"{side}{number}" for side in "ab" for number in range(1, 6))]
    for seed, name in enumerate(names):
        report = make({"threads": 20.0, "chat_gevent": 6.0}, blocks=6, seed=seed + 1)
        report.save(session.folder / f"{name}.json")
    (session.folder / "reports").mkdir()
    for name in names[2:]:
        shutil.copy(session.folder / f"{name}.json", session.folder / "reports")


FIRST: dict[str, Callable[[Session], None]] = {
    "README.md": reports,
    "benchmarks/README.md": reports,
    "chat_gevent/SERVICES.md": redis,
    "loadtest/README.md": store,
}
"""What a page takes for granted."""

BEFORE = {
    ("loadtest/README.md", "locust -f loadtest/locustfile.py --host tcp://127.0.0.1:12345"): confirmations,
}
"""What a command of a page takes for granted, by how it begins."""


def of(page: str) -> list[Command]:
    """The commands of a page."""
    return commands((ROOT / page).read_text())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in PAGES if of(page)])
def test_the_console_blocks_run(page: str, tmp_path: Path) -> None:
    """Each command ends well, or serves; its output is the page's, numbers and what is left out apart."""
    seen: set[str] = set()
    with Session(tmp_path) as session:
        if page in FIRST:
            FIRST[page](session)
        for command in of(page):
            for (where, begins), prepare in BEFORE.items():
                if where == page and command.text.startswith(begins):
                    prepare(session)
            instead = SHORTER.get(command.text)
            ran = instead.command if instead else command.text
            if instead and ran in seen and not instead.stop:  # a page may show a long command twice
                continue
            seen.add(ran)
            try:
                printed = session.run(ran, (0, 1, 3) if "compare" in ran else (0,))
            except AssertionError as error:
                raise AssertionError(f"{page}:{command.line}: {ran}: {error}") from None
            if command.output and (instead is None or instead.compare):
                assert matches(command.output, printed), f"{page}:{command.line}: {ran} prints\n{printed}"
            if instead and instead.stop:
                session.stop()


def test_no_command_is_told_to_take_long() -> None:
    """What is run of a page, in a shorter form where there is one, asks for no more than 10 s of anything."""
    for page in PAGES:
        for command in of(page):
            ran = SHORTER[command.text].command if command.text in SHORTER else command.text
            for found in LASTS.finditer(ran):
                factor = 60 if "minutes" in found[0] else 1
                assert float(found[1] or found[2]) * factor <= 10, f"{page}:{command.line}: {ran}"


def test_each_shorter_form_is_of_a_command_that_there_is() -> None:
    """None is left of a page that has changed, and each says why."""
    shown = {command.text for page in PAGES for command in of(page)}
    assert set(SHORTER) <= shown
    assert all(shorter.why for shorter in SHORTER.values())


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (["ready tcp://127.0.0.1:45763"], "ready tcp://127.0.0.1:1\n", True),
        (["Received: hello"], "Received: hullo\n", False),
        (["727279 0(0.00%) | 5.05"], "1 0(12.5%) | 3\n", True),
        (["a", "...", "z"], "a\nb\nc\nz\n", True),
        (["a", "...", "z"], "a\nz\n", True),
        (["a", "z"], "a\nb\nz\n", False),
        (["chat_gevent is ..., see (x)"], "chat_gevent is fast, see (x)\n", True),
        (["cores   2"], "cores      16\n", True),
        (["a"], "a\nb\n", False),
    ],
)
def test_outputs_are_compared(expected: list[str], printed: str, same: bool) -> None:
    """Numbers and what ``...`` stands for may differ, nothing else; white space counts once."""
    assert matches(expected, printed) is same
