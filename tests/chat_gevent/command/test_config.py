"""Where settings come from, which source wins, and what is said of one that can't be used."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from chat_gevent.command.config import FIELDS, ConfigError, ServeSettings, load
from chat_gevent.command.main import main
from chat_gevent.framing import LINE


def test_command_line_before_environment_before_file_before_default(tmp_path: Path) -> None:
    """The first source that gives a value counts, and is remembered."""
    file = tmp_path / "server.toml"
    file.write_text('idle_timeout = "10m"\nwrite_timeout = 20\ndrain_timeout = 5\n')
    environment = {"CHAT_GEVENT_IDLE_TIMEOUT": "20m", "CHAT_GEVENT_WRITE_TIMEOUT": "40", "HOME": "/"}
    loaded = load({"idle_timeout": "30m"}, environment, str(file))
    settings = loaded.settings
    assert (settings.idle_timeout, settings.write_timeout, settings.drain_timeout) == (1800, 40, 5)
    assert settings.linger_timeout == 2
    assert loaded.origins["idle_timeout"] == "command line --idle-timeout"
    assert loaded.origins["write_timeout"] == "environment CHAT_GEVENT_WRITE_TIMEOUT"
    assert loaded.origins["drain_timeout"] == f"file {file}"
    assert loaded.origins["linger_timeout"] == "default"


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    """CHAT_GEVENT_CONFIG is ``--config``."""
    file = tmp_path / "server.toml"
    file.write_text('listen = ["tcp://127.0.0.1:1", "unix:///run/x"]\naccess_log = true\nframing = "line"\n')
    settings = load({}, {"CHAT_GEVENT_CONFIG": str(file)}).settings
    assert settings.addresses == ("tcp://127.0.0.1:1", "unix:///run/x")
    assert settings.access_log
    assert settings.framing is LINE


@pytest.mark.parametrize("name", FIELDS)
def test_each_setting_is_an_option_a_variable_and_a_key(name: str, tmp_path: Path) -> None:
    """Whatever is a setting can be given in all three ways, with the same outcome."""
    examples: dict[str, Any] = {
        "framing": "chunk",
        "park_after": "never",
        "idle": "any",
        "slow_consumer": "drop-newest",
        "host": "::1",
        "listen": "unix:///run/x,tcp://[::]:9",
        "ipv6_only": "true",
        "unix_mode": "0600",
        "proxy_from": "10.0.0.0/8,unix",
        "handler": "package.module:function",
        "monkey": "true",
        "admin": "[::1]:9100",
        "admin_hosts": "example.org,[::1]",
        "log_level": "debug",
        "log_format": "json",
        "access_log": "true",
        "backplane": "redis://localhost:6379/1",
        "backplane_required": "true",
    }
    value = examples.get(name, "x.pem" if name.startswith("tls") else "7")
    beside = {"tls_certificate": "c.pem"} if name in ("tls_key", "tls_client_ca") else {}
    file = tmp_path / "server.toml"
    file.write_text("".join(f'{key} = "{each}"\n' for key, each in {**beside, name: value}.items()))
    by_file = load({}, {}, str(file)).settings
    environment = {f"CHAT_GEVENT_{key.upper()}": each for key, each in {**beside, name: value}.items()}
    assert load({}, environment).settings == by_file
    assert load({**beside, name: value}, {}).settings == by_file
    assert getattr(by_file, name) != FIELDS[name].default


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:s3cret@h:1/0", "redis://user:***@h:1/0"),
        ("rediss://:s3cret@h?ssl_ca_certs=ca.pem", "rediss://:***@h?ssl_ca_certs=ca.pem"),
        ("unix:///run/r?password=s3cret&db=1", "unix:///run/r?password=***&db=1"),
        ("redis://h:1/0", "redis://h:1/0"),
    ],
)
def test_print_config_shows_no_password(url: str, shown: str) -> None:
    """The password of the backplane's URL is left out, the rest is there."""
    assert f'backplane = "{shown}"' in load({"backplane": url}, {}).show()


@pytest.mark.parametrize(
    "value", ["a\tb", "a\nhandler = 'x:y'", "\x1b]0;title\x07", '\u202e"\\', "\U000e0041"]
)
def test_print_config_of_control_characters(value: str, tmp_path: Path) -> None:
    """What a setting has in it commands no terminal, begins no line, and is taken again as it was."""
    shown = load({}, {"CHAT_GEVENT_BACKPLANE_PREFIX": value}).show()
    assert all(line.isprintable() for line in shown.split("\n"))
    file = tmp_path / "settings.toml"
    file.write_text(shown)
    assert load({}, {}, str(file)).settings.backplane_prefix == value


def test_print_config_is_a_configuration_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it prints says where each value came from, and gives the same settings when it is read."""
    monkeypatch.setenv("CHAT_GEVENT_LISTEN", "tcp://127.0.0.1:0,unix:///run/x")
    assert main(["serve", "--print-config", "--park-after", "never", "--admin", ":9100", "--access-log"]) == 0
    out = capsys.readouterr().out
    file = tmp_path / "server.toml"
    file.write_text(out)
    monkeypatch.delenv("CHAT_GEVENT_LISTEN")
    again = load({}, {}, str(file)).settings
    assert again == ServeSettings(
        listen=("tcp://127.0.0.1:0", "unix:///run/x"), park_after=None, admin=":9100", access_log=True
    )
    assert set(tomllib.loads(out)) == {each.name for each in fields(ServeSettings)}
    lines = dict(line.split(" = ", 1) for line in out.splitlines())
    assert lines["park_after"].endswith("# command line --park-after")
    assert lines["listen"].endswith("# environment CHAT_GEVENT_LISTEN")
    assert lines["backlog"].endswith("# default")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--idle-timeout", "-1"], "--idle-timeout = -1: must be at least 0 s"),
        (["--port", "70000"], "--port = 70000: must be from 0 to 65535"),
        (["--listen", "udp://x:1"], "--listen = udp://x:1: must be tcp://HOST:PORT, tls://"),
        (["--listen", "tcp://x"], "--listen = tcp://x: must have HOST:PORT"),
        (["--listen", "tls://127.0.0.1:0"], "--listen = tls://127.0.0.1:0: tls:// needs --tls-certificate"),
        (
            ["--prot", "0"],
            "arguments: --prot 0; did you mean --port? (see chat-gevent serve --help)",
        ),
        (["--tls-key", "k.pem"], "--tls-key = k.pem: needs --tls-certificate"),
        (["--proxy-from", "10.0.0.1/8"], "--proxy-from = 10.0.0.1/8: must be networks such as"),
        (["--unix-mode", "rw"], '--unix-mode = rw: must be octal text such as "0660"'),
        (["--log-level", "loud"], "--log-level = loud: must be one of debug, info"),
        (["--admin", "9100"], "--admin = 9100: must have HOST:PORT"),
        (["--handler", "nothing"], "--handler = nothing: must be package.module:function"),
        (["--handler", ".m:f"], "--handler = .m:f: must be package.module:function"),
        (["--host", "a\n\x1b[2Jb:c"], r"a\n\x1b[2Jb:c"),
        (["--handler", "no.such:thing"], "handler no.such:thing: No module named 'no'"),
        (["--handler", "os:nothing"], "handler os:nothing: module 'os' has no attribute 'nothing'"),
        (["--handler", "os:name"], "handler os:name: neither a function nor a service"),
        (["--config", "/no/such"], "/no/such: can't be read: No such file or directory"),
        (["--idle-time", "3"], "unrecognized arguments: --idle-time 3"),
        (["--port"], "argument --port: expected one argument"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_2(
    arguments: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line on standard error names the option, the value and what is allowed; nothing is served."""
    try:
        status = main(["serve", *arguments])
    except SystemExit as end:  # argparse's way
        status = int(end.code or 0)
    out, err = capfd.readouterr()
    assert status == 2
    assert complaint in err
    assert err.count("\n") == 1
    assert not out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("idle_timeot = 3\n", "idle_timeot: no such setting, did you mean idle_timeout?"),
        ("[server]\nport = 3\n", "server: no such setting"),
        ("port = \n", "not TOML: "),
        ("port = 70000\n", "port = 70000: must be from 0 to 65535"),
        ("access_log = 3\n", "access_log = 3: must be true or false"),
        ("listen = [1]\n", "listen = [1]: must be a text or a list of texts"),
        ("unix_mode = 432\n", 'unix_mode = 432: must be octal text such as "0660"'),
    ],
)
def test_a_bad_file_names_itself_and_the_key(text: str, complaint: str, tmp_path: Path) -> None:
    """The complaint begins with the file's name."""
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load({}, {}, str(file))
    assert str(error.value).startswith(f"{file}: ")
    assert complaint in str(error.value)


def test_an_unknown_variable_is_an_error() -> None:
    """A misspelt variable would otherwise be a setting that silently does not hold."""
    with pytest.raises(ConfigError) as error:
        load({}, {"CHAT_GEVENT_IDLE_TIMOUT": "3"})
    complaint = (
        "environment: CHAT_GEVENT_IDLE_TIMOUT: no such setting, did you mean CHAT_GEVENT_IDLE_TIMEOUT?"
    )
    assert str(error.value) == complaint


def test_help_tells_each_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """``serve --help-all`` lists all settings."""
    with pytest.raises(SystemExit) as end:
        main(["serve", "--help-all"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for name in FIELDS:
        assert f"--{name.replace('_', '-')} " in out.replace(",", " ")
    assert "(default: 3600 s)" in " ".join(out.split())


def test_an_unknown_command_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """One line and status 2."""
    with pytest.raises(SystemExit) as end:
        main(["serf"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_command_it_says_what_to_try_first(capsys: pytest.CaptureFixture[str]) -> None:
    """A few lines, each a command to paste; it is bad usage, status 2."""
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    assert all(each.startswith("chat-gevent ") for each in lines)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("port = " + "9" * 400 + "\n", "is too large a number"),
        ("idle_timeout = " + "9" * 400 + "\n", "is too large a number"),
        ("port = " + "9" * 5000 + "\n", "not TOML: "),
        ("listen = " + "[" * 20_000 + "]" * 20_000 + "\n", "nested too deeply"),
        ('tls_certificate = "a\\u0000b"\n', "NUL"),
        ('listen = ["unix:///a\\u0000b"]\n', "NUL"),
    ],
    ids=["port", "float", "digits", "nested", "nul", "nul-in-list"],
)
def test_a_file_of_nonsense_is_one_short_line(text: str, complaint: str, tmp_path: Path) -> None:
    """Huge numbers, deep nesting and NUL are complaints, not tracebacks."""
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint) as error:
        load({}, {}, str(file))
    assert len(str(error.value)) < 1000


def test_an_empty_host_is_an_error() -> None:
    """A variable that came out empty must not open the server to every network."""
    for empty in ("", "[]"):
        with pytest.raises(ConfigError, match=r"CHAT_GEVENT_HOST = .*: must be an address or a name"):
            load({}, {"CHAT_GEVENT_HOST": empty})
    with pytest.raises(ConfigError, match="must name a host"):
        load({"listen": ["tcp://:12345"]}, {})


def test_brackets_around_a_host_are_taken_off() -> None:
    """``--host '[::1]'`` is ``--host ::1``."""
    assert load({"host": "[::1]"}, {}).settings.addresses == ("tcp://[::1]:12345",)


@pytest.mark.parametrize("given", ["1.1ms", "0.1", "7" * 18, "123456789.123456789", "2h", "9007199254740991"])
def test_numbers_are_shown_as_they_are_read_again(given: str, tmp_path: Path) -> None:
    """To the last digit, with any unit."""
    loaded = load({"drain_timeout": given}, {})
    file = tmp_path / "server.toml"
    file.write_text(loaded.show())
    assert load({}, {}, str(file)).settings == loaded.settings
    assert "0.0011 " in load({"drain_timeout": "1.1ms"}, {}).show()


def test_numbers_of_any_origin_have_one_bound(tmp_path: Path) -> None:
    """What is too large in a file is too large in the environment."""
    file = tmp_path / "server.toml"
    file.write_text(f"drain_delay = {'7' * 26}\n")
    for environment, path in (({"CHAT_GEVENT_DRAIN_DELAY": "7" * 26}, None), ({}, str(file))):
        with pytest.raises(ConfigError, match=r"(?i)drain_delay = 7.*: is too large a number"):
            load({}, environment, path)


@pytest.mark.parametrize("name", ["a..b", ".a", "a..", "."])
def test_names_of_admin_hosts_have_no_empty_part(name: str) -> None:
    """No client would send such a name; one dot at the end is taken off."""
    assert load({"admin_hosts": ["A.example."]}, {}).settings.admin_hosts == ("a.example",)
    with pytest.raises(ConfigError, match="must be names or addresses"):
        load({"admin_hosts": [name]}, {})
