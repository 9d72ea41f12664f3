"""The ``serve`` command: its options and its exit statuses.

Exit status: 0 all clients were told to leave and got their replies, 1 the server could not start, 2 a setting
is wrong, 3 clients were cut off, with replies still due.
"""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from chat_gevent.command import config
from chat_gevent.command.standard import complain, printable, say
from chat_gevent.command.usual import Usual
from chat_gevent.errors import CertificateError, ListenError
from chat_gevent.files import raise_file_limit

if TYPE_CHECKING:
    from chat_gevent.command import logs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` what ``chat-gevent serve`` takes."""
    parser.usage = "%(prog)s [OPTION ...]"
    parser.epilog = (
        "Each setting may also be an environment variable, CHAT_GEVENT_IDLE_TIMEOUT=10m, or a key of the "
        "file, idle_timeout = '10m'. The command line comes before the environment, that before the file. "
        "Times take ms, s, m, h, d; sizes kB, KiB, MB, MiB. SIGTERM drains and stops, SIGHUP reads the "
        "certificate again."
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file of settings, names as below with _ for -")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings and where each came from, and exit"
    )
    config.add_options(parser)


_USUAL: Final = {
    "where it listens": {
        "--host HOST": "address or name",
        "--port PORT": "port; 0 takes a free one",
        "--listen ADDRESS": "tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH",
        "--tls-certificate FILE": "speak TLS; certificate and chain, PEM",
        "--tls-key FILE": "its key, where that is a file of its own",
    },
    "what answers": {
        "--workers N": "processes; 0: one a core",
        "--handler MODULE:NAME": "a function or service of your own",
        "--framing FRAMING": "line, chunk, auto, delimiter:TEXT, length:BYTES",
    },
    "limits": {
        "--max-connections N": "default: what the machine carries",
        "--max-message-bytes BYTES": "longest message",
        "--idle-timeout SECONDS": "without a message; 0: never",
        "--drain-timeout SECONDS": "for clients to leave at a stop",
    },
    "seeing what it does": {
        "--admin HOST:PORT": "status and metrics over HTTP",
        "--log-level LEVEL": "debug, info, warning, error",
        "--access-log": "a line for each client that leaves",
    },
}
"""What ``--help`` says of the usual options, before their defaults."""


def usual() -> Usual:
    """What ``chat-gevent serve --help`` shows."""
    groups: dict[str, dict[str, str]] = {}
    for title, options in _USUAL.items():
        groups[title] = {}
        for each, what in options.items():
            name = each.split()[0].removeprefix("--").replace("-", "_")
            default = config.shown_default(name)
            said = "default" in what or default in ("none", "false")
            groups[title][each] = what if said else f"{what} (default: {default})"
    groups["settings"] = {
        "--config FILE": "TOML file of settings",
        "--print-config": "print all settings and where they come from",
        "--help-all": "all options: limits, time-outs, PROXY, Redis",
    }
    return Usual(
        usage="chat-gevent serve [OPTION ...]",
        about="Serve the confirm protocol, or a handler of your own, until Ctrl-C or SIGTERM.",
        groups=groups,
        examples=(
            "chat-gevent serve                      then: chat-gevent client hello",
            "chat-gevent serve --handler chat_gevent.rooms:Rooms --admin 127.0.0.1:9100",
        ),
        more="Any of them may be a variable of the environment: CHAT_GEVENT_IDLE_TIMEOUT=10m.",
    )


def run(arguments: argparse.Namespace) -> int:
    """``chat-gevent serve``; returns its exit status."""
    from gevent import monkey  # these only here: the options alone, for a shell, need no gevent

    from chat_gevent.command import logs
    from chat_gevent.command.handler import StartError
    from chat_gevent.command.listening import open_admin_listener, open_listeners
    from chat_gevent.command.process import ServerProcess
    from chat_gevent.command.shares import count_workers
    from chat_gevent.system import own_main_thread

    options = {name: value for name, value in vars(arguments).items() if name in config.FIELDS}
    try:
        loaded = config.load(options, file=arguments.config)
        if arguments.print_config:
            say(loaded.show())
            return 0
        settings = loaded.settings
        workers = count_workers(settings)
        patched = monkey.is_module_patched("socket")
        _patch(loaded, workers, patched)
        raise_file_limit()
        repeats = logs.start(settings.log_level, settings.log_format)
        by_default = {loaded.origins[name] for name in ("host", "listen")} == {"default"}
        try:
            if workers > 1:
                return _run_workers(
                    *(settings, workers, repeats, by_default),
                    lambda: config.load(options, file=arguments.config).settings,
                )
            admin = open_admin_listener(settings) if settings.admin else None
            listeners = open_listeners(settings, by_default=by_default)
            with ServerProcess(settings, repeats, listeners, admin) as service:
                return service.run()
        finally:
            logs.stop()
            own_main_thread()
    except config.ConfigError as error:
        return _fail(str(error), 2)
    except StartError as error:
        return _fail(str(error), error.status)
    except (ListenError, CertificateError) as error:
        taken = str(error).endswith(os.strerror(errno.EADDRINUSE))
        return _fail(f"{error}; stop what listens there, or listen elsewhere" if taken else str(error), 1)


def _patch(loaded: config.Loaded, workers: int, patched: bool) -> None:
    """Patch the standard library, where that is asked for and has not been done. Raises ConfigError."""
    from chat_gevent.command.patching import patch_late

    if workers > 1 and patched:
        how = "give --monkey beside --workers or CHAT_GEVENT_WORKERS, and each worker is patched"
        raise config.ConfigError(f"the master of several workers must not be patched; {how}")
    if workers == 1 and loaded.settings.monkey and not patched:
        if loaded.origins["monkey"].startswith("file"):
            raise config.ConfigError("monkey: too late here; give it as --monkey or CHAT_GEVENT_MONKEY=true")
        patch_late()  # with --workers it was not known before that this process itself is to serve


def _run_workers(
    settings: config.ServeSettings,
    workers: int,
    repeats: logs.RepeatFilter,
    by_default: bool,
    load: Callable[[], config.ServeSettings],
) -> int:
    """Run several workers, in the master and in each of them. Raises StartError; SystemExit at the end."""
    from chat_gevent.command.handler import StartError
    from chat_gevent.command.listening import (
        close_listeners,
        open_admin_listener,
        open_listeners,
        read_certificates,
    )

    try:
        from chat_gevent.command.master import ChatArbiter
    except ImportError as error:
        raise StartError(f"workers needs {error.name}: pip install 'chat-gevent[workers]'") from None
    certificates = read_certificates(settings)
    admin = open_admin_listener(settings) if settings.admin else None
    listeners = open_listeners(settings, by_default=by_default, reserve=True)
    try:
        master = ChatArbiter(settings, workers, listeners, admin, repeats, load, certificates)
    except BaseException:
        close_listeners(listeners)
        raise
    try:
        master.run()
    finally:
        master.close()
    return 0


def _fail(why: str, status: int) -> int:
    return complain(f"chat-gevent serve: error: {printable(why)}", status)
