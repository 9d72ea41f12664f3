"""The servers that are measured: how each is started, what it needs, and what it is.

Each is the idiomatic best of its kind, in a file of its own beside this one, and does the same work:
the line protocol with its UTF-8 check, ``/exit``, the bound of 65,536 bytes a line, an unterminated
last line, TCP_NODELAY. ``threads`` is the exception: it is what people write first, without framing,
and treats whatever one ``recv(1024)`` returns as a message.

A server is a command that takes ``--host`` and ``--port``, prints ``ready tcp://HOST:PORT`` on
standard output once it accepts, and ends on SIGTERM. Servers in C and Go are compiled on first use
into the user's cache, under the hash of their source.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.measure.compiler import cc, compiled
from benchmarks.measure.launch import PACKAGES, python
from benchmarks.measure.revisions import PACKAGE, locate
from benchmarks.reports.environment import source_hash

HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Server:
    """One server that can be measured."""

    name: str
    summary: str
    command: Callable[[], list[str]]
    """The command line but for ``--host`` and ``--port``; compiles what must be. Raises BuildFailed."""
    sources: tuple[str, ...]
    """Files, relative to ``benchmarks/measure/servers``, whose hash identifies what was measured."""
    modules: tuple[str, ...] = ()
    """Modules beyond the standard library that it imports; the first one's version is the server's."""
    tool: str | None = None
    """A program that must be installed: ``cc`` or ``go``."""
    framing: str = "line"
    tls: Callable[[Path, Path], list[str]] | None = None
    """Options that make it speak TLS with a certificate and key, where it can; of a user's, the command."""
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Options that make it do other work than to confirm: ``handler``, ``push``."""
    protocol: Mapping[str, object] = field(default_factory=dict)
    """Options of the load generator where it speaks another protocol than to confirm lines."""
    own: bool = False
    """A command of the user's: it is given a port, says nothing, and is ready once it accepts."""
    stuck: int = 0
    """How many of its clients read nothing, in a scenario that asks what they cost the others."""
    whole: bool = False
    """To be measured in one piece: it takes seconds under load until it is steady, as many threads do."""

    packages: Path = PACKAGES
    """The folder whose packages it is made of."""
    revision: str = ""
    """What these are, where they are not those of this program."""

    def missing(self) -> str | None:
        """Why it cannot run here, in a few words; None where it can."""
        for module in self.modules:
            if importlib.util.find_spec(module) is None:
                return f"Python package {module} is not installed"
        if self.tool == "cc" and not cc():
            return "no C compiler"
        if self.tool and self.tool != "cc" and not shutil.which(self.tool):
            return f"{self.tool} is not installed"
        return None

    def again(self, number: int) -> Server:
        """The same under a name of its own, to be measured several times in one run."""
        return dataclasses.replace(self, name=f"{self.name}#{number + 1}") if number else self

    def variant(self, name: str) -> Server:
        """The same under the same name, with the options of a variant, which it must have."""
        command, options = self.command, self.variants[name]
        return dataclasses.replace(self, command=lambda: [*command(), *options])

    def over_tls(self, certificate: Path, key: Path) -> Server:
        """The same under the same name, speaking TLS, which it must be able to."""
        assert self.tls
        command, words = self.command, self.tls(certificate, key)
        return dataclasses.replace(self, command=lambda: words if self.own else [*command(), *words])

    def version(self) -> str:
        """What implements it, with its version."""
        if self.own:
            return "a command of one's own"
        if self.tool == "go":
            done = subprocess.run(["go", "version"], capture_output=True, text=True, check=False)
            return done.stdout.strip().removeprefix("go version ")
        if self.tool == "cc":
            done = subprocess.run([cc() or "cc", "--version"], capture_output=True, text=True, check=False)
            return done.stdout.partition("\n")[0]
        python = f"{platform.python_implementation()} {platform.python_version()}"
        modules = [f"{name} {importlib.metadata.version(name)}" for name in self.modules]
        return ", ".join(filter(None, [self.revision, *modules, python]))

    def source_hash(self) -> str:
        """SHA-256 over its source files, the first 16 digits."""
        paths = [HERE / name for name in self.sources]
        return source_hash(
            file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])
        )


def _module(name: str, *options: str) -> Callable[[], list[str]]:
    return lambda: python("-m", f"benchmarks.measure.servers.{name}", *options)


def _python(name: str, summary: str, *modules: str, **more: Any) -> Server:
    sources = (f"{name}.py", "common.py", "handler.py")
    return Server(name, summary, _module(name), sources, modules, **more)


def _chat_gevent(*options: str) -> Callable[[], list[str]]:
    return lambda: python("-m", "chat_gevent", "serve", "--framing", "line", *options)


def _c_epoll(*options: str) -> Callable[[], list[str]]:
    compiler = cc() or "cc"
    return lambda: [
        str(
            compiled(
                HERE / "c_epoll.c", lambda source, target: [compiler, "-O2", "-o", str(target), str(source)]
            )
        ),
        *options,
    ]


def _go() -> list[str]:
    return [
        str(
            compiled(
                HERE / "go" / "main.go",
                lambda source, target: ["go", "build", "-o", str(target), str(source)],
            )
        )
    ]


def _tls(certificate: Path, key: Path) -> list[str]:
    return ["--tls-certificate", str(certificate), "--tls-key", str(key)]


_OWN = ("../../../chat_gevent",)
_VARIANTS: Final = {"handler": ("--handler",), "push": ("--push", "1")}
_OWN_VARIANTS: Final = {
    "handler": ("--handler", f"{__name__}.handler:handle"),
    "push": ("--handler", f"{__name__}.push_service:Push"),
}

SERVERS: Final[dict[str, Server]] = {
    server.name: server
    for server in [
        Server(
            "chat_gevent", "this project's server: a client owns a greenlet while it has something to say",
            _chat_gevent(), _OWN, ("gevent", "greenlet"), tls=_tls, variants=_OWN_VARIANTS,
        ),
        Server(
            "chat_gevent_never", "the same with --park-after never: a greenlet per client all the time",
            _chat_gevent("--park-after", "never"), _OWN, ("gevent", "greenlet"), tls=_tls,
            variants=_OWN_VARIANTS,
        ),
        _python(
            "gevent_plain", "gevent StreamServer: a greenlet per client", "gevent", "greenlet",
            tls=_tls, variants=_VARIANTS,
        ),
        _python("threads", "what people write first: a thread per client", framing="chunk", whole=True),
        _python("socketserver", "the standard library's ThreadingTCPServer: a thread per client", whole=True),
        _python(
            "asyncio_protocol", "asyncio with a Protocol: callbacks, no task per client",
            tls=_tls, variants=_VARIANTS,
        ),
        _python("asyncio_streams", "asyncio with streams: a task per client that awaits lines", tls=_tls),
        _python(
            "uvloop_protocol", "uvloop with the same Protocol as asyncio_protocol", "uvloop",
            tls=_tls, variants=_VARIANTS,
        ),
        _python("uvloop_streams", "uvloop with the same streams as asyncio_streams", "uvloop", tls=_tls),
        _python("tornado", "Tornado's TCPServer and IOStream: a coroutine per client", "tornado", tls=_tls),
        _python("trio", "Trio: a task per client on serve_tcp", "trio"),
        _python("twisted", "Twisted's LineOnlyReceiver on the epoll reactor", "twisted"),
        Server("go", "Go: a goroutine per client", _go, ("go/main.go",), tool="go", tls=_tls),
        Server(
            "c_epoll", "C, one thread on epoll", _c_epoll(), ("c_epoll.c",), tool="cc",
            variants={"push": ("--push", "1")},
        ),
    ]
}  # fmt: skip
"""All servers by name, in the order in which they are shown."""


def slowed(name: str, busy_ns: int) -> Server:
    """``asyncio_protocol`` or ``c_epoll`` with a busy loop of ``busy_ns`` nanoseconds for each read.

    It is there to test comparisons with: a server that is known to be slower, by a known time.
    """
    base = SERVERS[name]
    if name == "c_epoll":
        command = _c_epoll("--busy-ns", str(busy_ns))
    elif name in ("asyncio_protocol", "uvloop_protocol"):
        command = _module(name, "--busy-ns", str(busy_ns))
    else:
        raise ValueError(f"{name} takes no busy loop: choose asyncio_protocol, uvloop_protocol or c_epoll")
    return Server(f"{name}+{busy_ns}ns", base.summary, command, base.sources, base.modules, base.tool)


def _of_revision(server: Server, source: str) -> Server:
    if server.sources != _OWN:
        raise ValueError(f"{server.name} has no revisions: only this project's server has")
    packages, revision = locate(source)
    name = f"{server.name}@{Path(source).name if Path(source).exists() else source}"
    sources = (str(packages / PACKAGE),)
    return dataclasses.replace(server, name=name, sources=sources, packages=packages, revision=revision)


def find(name: str) -> Server:
    """The server called ``name``; options may follow the name, ``NAME+<N>ns`` is the same slowed.

    ``chat_gevent@SOURCE`` is that of another revision, wheel or folder (:mod:`benchmarks.measure.revisions`).

    Raises KeyError: there is no such server. Raises ValueError: it cannot be slowed, or not so.
    """
    try:
        base, *options = shlex.split(name)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
    base, at, source = base.partition("@")
    base, plus, busy = base.partition("+")
    digits = busy.removesuffix("ns")
    if plus and not digits.isdecimal():
        raise ValueError(f"{name!r}: after + comes a time such as 262ns")
    server = slowed(base, int(digits)) if plus else SERVERS[base]
    if at:
        server = _of_revision(server, source)
    if options:
        command = server.command
        name = shlex.join([server.name, *options])
        server = dataclasses.replace(server, name=name, command=lambda: [*command(), *options])
    return server
