"""The options that a locustfile with a TCP user has: on the command line, in ``--help`` and in the web form.

Locust keeps options as plain values and the web form replaces them by strings, so they are kept as
they were written and turned into a :class:`Plan`, which is checked as a whole, when a test starts.
"""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from loadtest.client.address import SourcePool, Target
from loadtest.client.tls import make_context
from loadtest.client.transport import ClientOptions
from loadtest.count.thresholds import Threshold
from loadtest.errors import OptionsError
from loadtest.framing import ReplyFraming, marks_ends, parse_framing
from loadtest.messages import Template
from loadtest.schedule import parse_rate

SENDING_OPTIONS: Final = (
    "message_size",
    "message_template",
    "pipeline",
    "hold",
    "messages",
    "messages_per_connection",
    "connection_lifetime",
)
"""Options of what ``ConfirmUser`` sends."""
_TLS_OPTIONS: Final = ("tls_ca", "tls_client_certificate", "tls_client_key", "tls_insecure")
SHAPES: Final = ("none", "ramp", "steps", "spike", "soak")


@dataclass(frozen=True, slots=True)
class Plan:
    """What each user of a test does, read from the options. Times are in seconds, sizes in bytes."""

    framing: ReplyFraming
    message_size: int = 32
    template: Template | None = None
    think: tuple[float, float] = (0.0, 0.0)
    rate: float = 0.0
    rate_per_user: bool = False
    pipeline: int = 1
    hold: float = 0.0
    messages: int = 0
    messages_per_connection: int = 0
    lifetime: float = 0.0

    @property
    def model(self) -> str:
        """How load is driven, in the words that stand beside percentiles."""
        if self.rate:
            return "open schedule: response times count from the intended start"
        return "closed loop: not corrected for coordinated omission"


def _adder(parser: argparse.ArgumentParser, title: str, *, in_form: bool = True) -> Callable[..., None]:
    """``add_argument`` of a new group, with what Locust's own parser notes for its web form."""
    group = parser.add_argument_group(f"TCP users: {title}")

    def add(name: str, **how: Any) -> None:
        if name != "--help-tcp":
            how["env_var"] = "LOCUST_" + name.removeprefix("--").replace("-", "_").upper()
        action: Any = group.add_argument(name, **how)
        action.include_in_web_ui = in_form
        action.is_secret = action.is_required = action.is_multiple = False

    return add


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options in groups of their own. Locust's web form shows all but the files and thresholds."""
    add = _adder(parser, "what is sent")
    add("--framing", default="line", help=r"line, chunk, delimiter:TEXT or length:BYTES[le] (default: line)")
    add("--message-size", type=int, default=32, metavar="BYTES", help="Bytes of a message (default: 32)")
    add(
        "--message-template",
        default="",
        metavar="TEXT",
        help="Message with {user}, {n}, {time}, {uuid}, {random:LENGTH} filled in; replaces --message-size",
    )
    add = _adder(parser, "how it is driven")
    add(
        "--rate",
        default="",
        metavar="RATE",
        help="Messages a second, in all (200) or per user (20/user), sent on schedule whatever replies do",
    )
    add(
        "--think-time",
        default="0",
        metavar="SECONDS",
        help="Pause between a reply and the next message: 0.5, or 0.5-2 for a random one",
    )
    add("--pipeline", type=int, default=1, metavar="N", help="Messages sent in one write (default: 1)")
    add(
        "--hold",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="Hold connections open and send a message on each every so many seconds",
    )
    add("--messages", type=int, default=0, metavar="N", help="Messages after which a user stops (0: never)")
    add(
        "--messages-per-connection",
        type=int,
        default=0,
        metavar="N",
        help="Messages after which a user sends /exit and connects anew (0: never)",
    )
    add(
        "--connection-lifetime",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="Age at which a connection ends with /exit and is opened anew (0: never)",
    )
    add = _adder(parser, "connections")
    add(
        "--addresses",
        default="first",
        choices=("first", "all"),
        help="Which address of a name to begin with: the first, or each in turn (default: first)",
    )
    add(
        "--source-addresses",
        default="",
        metavar="LIST",
        help="Addresses to connect from, in turn (one has about 28,000 ports): 127.0.0.2-127.0.0.9,::1",
    )
    for name in ("connect", "read", "write"):
        add(
            f"--{name}-timeout",
            type=float,
            default=5.0,
            metavar="SECONDS",
            help=f"Time-out of a {name} (default: 5)",
        )
    add(
        "--nagle",
        action="store_true",
        help="Leave TCP_NODELAY off, so that the kernel may hold small messages back",
    )
    add(
        "--linger",
        type=float,
        default=-1.0,
        metavar="SECONDS",
        help="SO_LINGER, whole seconds: 0 closes with a reset, no TIME_WAIT (-1: the kernel's default)",
    )
    add(
        "--tls-ca",
        default="",
        metavar="FILE",
        help="Certificate authority for tls:// hosts, instead of the system's",
    )
    add("--tls-client-certificate", default="", metavar="FILE", help="Client certificate (PEM)")
    add(
        "--tls-client-key",
        default="",
        metavar="FILE",
        help="Its private key, where it is in a file of its own",
    )
    add(
        "--tls-server-name",
        default="",
        metavar="NAME",
        help="Name sent as SNI and looked for in the certificate",
    )
    add("--tls-insecure", action="store_true", help="Accept any certificate")
    add = _adder(parser, "shape of the load")
    add(
        "--shape",
        default="none",
        choices=SHAPES,
        help="How the number of users changes over time (default: none)",
    )
    add(
        "--shape-users", type=int, default=100, metavar="N", help="Users at the top of a shape (default: 100)"
    )
    add("--shape-time", type=float, default=60.0, metavar="SECONDS", help="Length of a ramp, spike or soak")
    add("--step-users", type=int, default=10, metavar="N", help="Users that each step adds (default: 10)")
    add("--step-time", type=float, default=10.0, metavar="SECONDS", help="Length of a step (default: 10)")
    add(
        "--knee-p99",
        default="100ms",
        metavar="TIME",
        help="Steps stop where p99 crosses this (default: 100ms)",
    )
    add(
        "--knee-errors",
        default="1%",
        metavar="SHARE",
        help="Steps stop where errors cross this share (default: 0.01 of them, 1 in 100)",
    )
    add = _adder(parser, "report", in_form=False)
    add(
        "--help-tcp",
        action="help",
        help="Show all options (Locust's --help comes before it reads a locustfile)",
    )
    add("--report", default="", metavar="FILE.json", help="Write the report here")
    add("--report-html", default="", metavar="FILE.html", help="Write the report as a page")
    add(
        "--fail-if",
        action="append",
        default=[],
        metavar="CONDITION",
        help="Exit with status 3 if it holds at the end: p99>50ms, errors>0.1%%, rate<900, workers<3, "
        "'GET.p99>50ms', connect.errors>0, 'transaction NAME.p99>1s'; may be repeated",
    )


def own_options() -> dict[str, Any]:
    """The names of our options, with their defaults."""
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    return vars(parser.parse_args([]))


def _number(options: Any, name: str, default: float, least: float = 0.0) -> float:
    value = getattr(options, name, default)
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except ValueError:
        raise OptionsError(f"--{name.replace('_', '-')} {value!r} is not a number") from None
    if not least <= number < float("inf"):
        raise OptionsError(
            f"--{name.replace('_', '-')} {value} is below {least:g}"
            if number < least
            else f"--{name.replace('_', '-')} {value} is not a number"
        )
    return number


def _think(text: str) -> tuple[float, float]:
    low, _, high = str(text or "0").partition("-")
    try:
        pause = float(low), float(high or low)
    except ValueError:
        pause = -1.0, -1.0
    if not 0 <= pause[0] <= pause[1] < float("inf"):
        raise OptionsError(f"--think-time {text!r}: write seconds (0.5) or a range of them (0.5-2)")
    return pause


def read_plan(options: Any, framing: ReplyFraming | None = None) -> Plan:
    """The plan that ``options`` say; ``framing`` is a user class's own. Raises OptionsError."""
    try:
        rate, per_user = parse_rate(options.rate) if getattr(options, "rate", "") else (0.0, False)
        template = Template(options.message_template) if getattr(options, "message_template", "") else None
        plan = Plan(
            framing=framing or parse_framing(getattr(options, "framing", "line")),
            message_size=int(_number(options, "message_size", 32)),
            template=template,
            think=_think(getattr(options, "think_time", "0")),
            rate=rate,
            rate_per_user=per_user,
            pipeline=int(_number(options, "pipeline", 1, 1)),
            hold=_number(options, "hold", 0.0),
            messages=int(_number(options, "messages", 0)),
            messages_per_connection=int(_number(options, "messages_per_connection", 0)),
            lifetime=_number(options, "connection_lifetime", 0.0),
        )
        for condition in getattr(options, "fail_if", []):
            Threshold.parse(condition)
    except OptionsError:
        raise
    except ValueError as error:
        raise OptionsError(str(error)) from None
    if plan.hold and (plan.rate or plan.pipeline > 1 or plan.think != (0.0, 0.0)):
        raise OptionsError(
            "--hold already says when messages are sent: leave out --rate, --pipeline and --think-time"
        )
    if plan.rate and plan.think != (0.0, 0.0):
        raise OptionsError("--rate already says when messages are sent: leave out --think-time")
    if plan.pipeline > 1 and not marks_ends(plan.framing):
        raise OptionsError("--pipeline needs a framing that marks where a reply ends, and chunk does not")
    return plan


def read_client_options(options: Any, host: str, plan: Plan) -> ClientOptions:
    """The clients' settings for ``host``. Raises OptionsError."""
    try:
        target = Target.parse(host)
        target.spread = getattr(options, "addresses", "first") == "all"
        written = getattr(options, "source_addresses", "")
        sources = SourcePool.parse(written) if written else None
        if sources is not None:
            sources.check(target)
        tls: ssl.SSLContext | None = None
        said = any(getattr(options, name, "") for name in _TLS_OPTIONS)
        if target.scheme == "tls" or said:  # a user may begin TLS later on any connection
            tls = make_context(
                getattr(options, "tls_ca", "") or None,
                getattr(options, "tls_client_certificate", "") or None,
                getattr(options, "tls_client_key", "") or None,
                verify=not getattr(options, "tls_insecure", False),
            )
        linger = _number(options, "linger", -1.0, -1.0)
        if linger % 1:
            raise OptionsError(f"--linger {linger:g}: the kernel counts whole seconds; 0 closes with a reset")
        return ClientOptions(
            target=target,
            framing=plan.framing,
            connect_timeout=_number(options, "connect_timeout", 5.0, 0.001),
            read_timeout=_number(options, "read_timeout", 5.0, 0.001),
            write_timeout=_number(options, "write_timeout", 5.0, 0.001),
            nodelay=not getattr(options, "nagle", False),
            linger=int(linger) if linger >= 0 else None,
            sources=sources,
            tls=tls,
            server_name=getattr(options, "tls_server_name", "") or None,
        )
    except OptionsError:
        raise
    except ssl.SSLError as error:
        raise OptionsError(f"TLS: {error.reason or error}") from None
    except OSError as error:
        raise OptionsError(f"{error.filename or host}: {error.strerror}") from None
    except ValueError as error:
        raise OptionsError(str(error)) from None


def check_used(options: Any, uses: Sequence[tuple[str, set[str]]]) -> None:
    """Refuse options that the user classes of a run do not go by. Raises OptionsError.

    ``uses`` has each class's name and what it goes by. A rate is everybody's: a class that paces itself would
    make another one of it.
    """
    if not uses:
        return
    defaults = own_options()
    for name in (*SENDING_OPTIONS, "framing", "think_time", "rate"):
        if getattr(options, name, defaults[name]) == defaults[name]:
            continue
        without = [user for user, used in uses if name not in used]
        if without and (name == "rate" or len(without) == len(uses)):
            option = f"--{name.replace('_', '-')}"
            why = "has a wait_time of its own" if name in ("rate", "think_time") else "does not use it"
            if name == "framing":
                why = "has a framing of its own"
            raise OptionsError(f"{option}: {without[0]} {why}")
