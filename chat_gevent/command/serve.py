"""The ``serve`` command: its options and its exit statuses.

Exit status: 0 all clients were told to leave and got their replies, 1 the server could not start, 2 a setting
is wrong, 3 clients were cut off, with replies still due.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from gevent import monkey

from chat_gevent.command import config, logs
from chat_gevent.command.handler import StartError
from chat_gevent.command.listening import open_admin_listener, open_listeners, read_certificates
from chat_gevent.command.process import ServerProcess
from chat_gevent.command.shares import count_workers, most_of_all
from chat_gevent.command.standard import complain, printable, say
from chat_gevent.errors import CertificateError, ListenError
from chat_gevent.files import raise_file_limit
from chat_gevent.system import own_main_thread


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


def run(arguments: argparse.Namespace) -> int:
    """``chat-gevent serve``; returns its exit status."""
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
        return _fail(str(error), 1)


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
    """Run several workers, in the master and in each of them. Raises SystemExit with the exit status."""
    try:
        from chat_gevent.command.master import ChatArbiter
    except ImportError as error:
        raise StartError(f"workers needs {error.name}: pip install 'chat-gevent[workers]'") from None
    connections = most_of_all(settings, workers)
    read_certificates(settings)
    admin = open_admin_listener(settings) if settings.admin else None
    listeners = open_listeners(settings, by_default=by_default, reserve=True)
    master = ChatArbiter(settings, workers, listeners, admin, repeats, connections, load)
    try:
        master.run()
    finally:
        master.close()
    return 0


def _fail(why: str, status: int) -> int:
    return complain(f"chat-gevent serve: error: {printable(why)}", status)
