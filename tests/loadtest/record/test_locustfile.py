"""The text of locustfiles: it is Python, it says what was recorded, and hides what it should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.framing import Resp
from loadtest.record.command import write_locustfile
from loadtest.record.tape import Side, Tape
from tests.loadtest.record.tapes import tape_of

C, S = "C", "S"


def written(*tapes: Tape, mask: tuple[str, ...] = (), unique: tuple[str, ...] = ()) -> str:
    """The locustfile for tapes, which compiles."""
    text = write_locustfile(tapes, ("127.0.0.1", 7), mask, unique)
    compile(text, "locustfile.py", "exec")
    return text


def test_requests_that_all_have_a_reply_go_on_one_connection() -> None:
    """Nothing is closed, and literals stand where nothing changes."""
    text = written(tape_of((C, b"PING\r\n"), (S, b"PONG\r\n"), (C, b"INCR\r\n"), (S, b"17\r\n")))
    assert r'framing = Delimiter(b"\r\n")' in text
    assert 'host = "tcp://127.0.0.1:7"' in text
    assert 'self.client.request("PING", name="PING", expect=b"PONG")' in text
    assert r'self.client.request("INCR", name="INCR", expect=re.compile(rb"^\d+\Z"))' in text
    assert "close()" not in text
    assert "on_connect" not in text


def test_a_server_that_greets_is_connected_to_anew_for_each_task() -> None:
    """The greeting stands in ``on_connect``."""
    text = written(tape_of((S, b"hello\n"), (C, b"a\n"), (S, b"b\n"), ended_by="server"))
    assert 'def on_connect(self):\n        self.client.receive(name="GREETING", expect=b"hello")' in text
    assert "self.client.close()" in text


def test_a_masked_password_is_taken_from_the_environment_and_makes_a_login() -> None:
    """It stands nowhere in the file, not even where the server repeats it."""
    text = written(
        tape_of((C, b"AUTH s3cr{et\n"), (S, b"welcome s3cr{et\n"), (C, b"GET\n"), (S, b"x\n")),
        mask=(r"AUTH (\S+)",),
    )
    assert "s3cr" not in text
    assert 'SECRET_1 = os.environ["SECRET_1"]' in text
    login, task = text.split("@task")
    assert 'self.client.request(f"AUTH {SECRET_1}", name="AUTH"' in login
    assert "GET" in task


def test_a_masked_value_between_bytes_that_are_no_text() -> None:
    """The request is put together of bytes."""
    text = written(tape_of((C, b"\xff secret \xfe\n"), (S, b"ok\n")), mask=("secret",))
    assert r'b"\xff " + SECRET_1.encode() + b" \xfe"' in text


def test_a_password_of_redis_is_masked_by_the_expression_of_the_guide() -> None:
    """Which is written for the command as people know it, not for its bytes."""
    text = written(
        tape_of(
            (C, Resp.command(b"AUTH", b"hunter2")), (S, b"+OK\r\n"),
            (C, Resp.command(b"GET", b"k")), (S, b"$1\r\nx\r\n"),
        ),
        mask=(r"AUTH (\S+)",),
    )  # fmt: skip
    assert "hunter2" not in text
    assert 'self.client.request(f"AUTH {SECRET_1}", name="AUTH"' in text


def test_a_masked_value_in_two_messages_is_not_written_in_two_pieces() -> None:
    """Also where the server echoes each piece."""
    text = written(
        tape_of(
            (S, b"Password: "), (C, b"hun"), (S, b"***"), (C, b"ter2\r\n"), (S, b"****\r\n"),
            (C, b"QUIT\r\n"), (S, b"bye\r\n"),
        ),
        mask=("hunter2",),
    )  # fmt: skip
    assert "hun" not in text.lower()
    assert "ter2" not in text.lower()


def test_a_masked_value_is_no_name_of_a_request() -> None:
    """Where it is a line of its own, as at a login of telnet."""
    text = written(
        tape_of(
            (S, b"login: "), (C, b"bob\r\n"),
            (S, b"Password: "), (C, b"hunter2\r\n"),
            (S, b"welcome\r\n"),
        ),
        mask=("hunter2",),
    )  # fmt: skip
    assert "hunter2" not in text.lower()
    assert 'name="REQUEST"' in text
    assert 'name="BOB"' in text


def test_a_masked_first_word_of_a_redis_command_is_no_name() -> None:
    """Also there."""
    text = written(tape_of((C, Resp.command(b"hunter2", b"x")), (S, b"+OK\r\n")), mask=("hunter2",))
    assert "hunter2" not in text.lower()


def test_masked_values_in_replies_and_the_greeting_are_not_written() -> None:
    """With a blank, like a status, or both."""
    text = written(
        tape_of(
            (S, b"220 correct horse is ready\n"), (C, b"TOKEN\n"), (S, b"555-1234-abcd\n"),
            (C, b"PASS correct horse\n"), (S, b"hello correct horse\n"),
        ),
        mask=("correct horse", "555-1234-abcd"),
    )  # fmt: skip
    assert [each for each in ("correct", "horse", "1234", "abcd") if each in text] == []
    assert 'self.client.request(f"PASS {SECRET_' in text


def test_a_masked_value_in_the_host_is_not_written() -> None:
    """The host is put together of what remains."""
    tapes = [tape_of((C, b"AUTH example\n"), (S, b"ok\n"))]
    text = write_locustfile(tapes, ("db.example.com", 7), ["example"], [])
    assert "example" not in text
    assert 'host = f"tcp://db.{SECRET_1}.com:7"' in text


def test_a_masked_value_within_a_unique_one_is_not_written() -> None:
    """The unique value is put together of what remains."""
    text = written(tape_of((C, b"NICK bobby\n"), (S, b"ok\n")), mask=("bob",), unique=(r"NICK (\S+)",))
    assert "bob" not in text
    assert 'self.unique_1 = f"{SECRET_1}by{self.number}"' in text
    assert 'SECRET_1 = os.environ["SECRET_1"]' in text


def test_a_value_that_stands_in_a_message_a_thousand_times() -> None:
    """Python could not read a sum of that many terms."""
    text = written(tape_of((C, b"\xffsecret" * 5000 + b"\n"), (S, b"ok\n")), mask=("secret",))
    assert r'b"".join((b"\xff", SECRET_1.encode(), b"\xff", ' in text


def test_a_command_of_redis_is_written_in_words() -> None:
    """So that a password of another length has the right length; words with blanks stay words."""

    def command(*words: bytes) -> bytes:
        return Resp.command(*words)

    text = written(
        tape_of(
            (C, command(b"AUTH", b"s3cret")), (S, b"+OK\r\n"),
            (C, command(b"SET", b"k", b"two words")), (S, b"+OK\r\n"),
            (C, command(b"INCR", b"n")), (S, b":7\r\n"),
        ),
        mask=("s3cret",),
    )  # fmt: skip
    assert 'self.client.request(f"AUTH {SECRET_1}", name="AUTH", expect=b"+OK")' in text
    assert 'self.client.request(Resp.command("SET", "k", "two words"), name="SET", expect=b"+OK")' in text
    assert r'self.client.request("INCR n", name="INCR", expect=re.compile(rb"^:\d+\Z"))' in text


@pytest.mark.parametrize("value", [b"o'\n\x1b[2J", b"o'\"\n#{os}", b"\\'", b"caf\xe9", b"''"])
def test_a_unique_value_never_becomes_code(value: bytes) -> None:
    """Quotes, line ends, control characters and bytes that are no text stay within the string."""
    text = written(tape_of((C, b"NICK <" + value + b">\r\n"), (S, b"ok\r\n")), unique=(r"(?s)<(.+)>",))
    lines = [line.strip() for line in text.splitlines() if "self.unique_1 = " in line]
    assert len(lines) == 1
    names: dict[str, str] = {}
    exec(lines[0].replace("self.unique_1", "result").replace("self.number", "7"), names)
    assert names["result"] == value.decode(errors="replace") + "7"


def test_a_unique_value_has_the_number_of_the_user() -> None:
    """Braces and quotation marks of the recording are no code in the file."""
    text = written(tape_of((C, b'NICK al{i"ce\n'), (S, b'hello al{i"ce\n')), unique=(r"NICK (\S+)",))
    names: dict[str, str] = {}
    line = next(line for line in text.splitlines() if "self.unique_1 = " in line)
    exec(line.strip().replace("self.unique_1", "result").replace("self.number", "7"), names)
    assert names["result"] == 'al{i"ce7'
    assert 'f"NICK {self.unique_1}"' in text


def test_the_same_conversation_twice_is_one_task_with_its_weight() -> None:
    """And what differed between the two is marked."""
    first = tape_of((C, b"WHO\n"), (S, b"you are red\n"))
    second = tape_of((C, b"WHO\n"), (S, b"you are blue\n"))
    other = tape_of((C, b"PING\n"), (S, b"PONG\n"))
    text = written(first, second, other)
    assert "@task(2)\n    def conversation_1" in text
    assert """        # differed: 'red', 'blue'\n        self.client.request("WHO",""" in text
    assert r'expect=re.compile(rb"^you are \S+\Z"))' in text
    assert "@task\n    def conversation_2" in text


def test_a_message_that_the_framing_can_not_send_is_sent_as_it_is() -> None:
    """``Wire`` says so; the framing of the replies stays."""
    text = written(tape_of((C, b"set k 5\r\nhello\r\n"), (S, b"STORED\r\n"), (C, b"quit!"), (S, b"BYE\r\n")))
    assert 'framing = Delimiter(b"\\r\\n")' in text
    assert r'self.client.request(Wire(b"set k 5\r\nhello\r\n")' in text
    assert "import Delimiter, Wire" in text


def test_pushes_get_a_handler_that_answers_them() -> None:
    """As the client did."""
    text = written(
        tape_of(
            (C, b"LIST\n"),
            (S, b"a\nend\n"),
            2,
            (S, b"PING 17\n"),
            (C, b"PONG 17\n"),
            0.5,
            (C, b"LIST\n"),
            (S, b"a\nend\n"),
        )
    )
    assert "self.client.push(self.on_push)" in text
    names: dict[str, object] = {}
    body = text[text.index("    def on_push") :]
    exec("class Handler:\n" + body, names)
    handler = names["Handler"]()  # type: ignore[operator]
    assert handler.on_push(b"PING 99") == b"PONG 99"
    assert handler.on_push(b"news") is None


def test_a_masked_value_in_a_push_and_its_answer_is_not_written() -> None:
    """The answer is put together of the variable, and goes on with what stood behind the push."""
    text = written(
        tape_of(
            (C, b"LIST\n"), (S, b"a\nend\n"), 2,
            (S, b"PING correct horse 17\n"), (C, b"PONG correct horse 17\n"), 0.5,
            (C, b"LIST\n"), (S, b"a\nend\n"), 2,
            (S, b"TOKEN correct horse\n"), (C, b"SEEN correct horse\n"), 0.5,
            (C, b"LIST\n"), (S, b"a\nend\n"),
        ),
        mask=("correct horse",),
    )  # fmt: skip
    assert "correct" not in text
    assert "horse" not in text
    names: dict[str, object] = {"SECRET_1": "battery staple"}
    exec("class Handler:\n" + text[text.index("    def on_push") :], names)
    handler = names["Handler"]()  # type: ignore[operator]
    assert handler.on_push(b"PING battery staple 99") == b"PONG battery staple 99"
    assert handler.on_push(b"TOKEN something") == b"SEEN something"
    assert handler.on_push(b"news") is None


MESSAGES = st.one_of(
    st.binary(min_size=1, max_size=30),
    st.lists(
        st.sampled_from([b"250-a", b"250 ok", b"PING :x", b"PONG :x", b".", b"", b"'\"{}\\"]), min_size=1
    ).map(lambda lines: b"".join(line + b"\r\n" for line in lines)),
    st.sampled_from(
        [b"*1\r\n$4\r\nPING\r\n", b"+OK\r\n", b"\0\0\0\1x", b"$5\r\nhel", b"Content-Length: 2\r\n\r\nok"]
    ),
)
SCRIPTS = st.lists(
    st.one_of(st.tuples(st.sampled_from("CS"), MESSAGES), st.sampled_from([0.2, 2.0, 20.0])), max_size=12
)


@given(
    scripts=st.lists(SCRIPTS, min_size=1, max_size=3),
    seed=st.integers(0, 5),
    ended=st.sampled_from(["client", "server", None]),
)
def test_whatever_passed_a_file_is_written_and_what_was_sent_stands_in_it(
    scripts: list[list[tuple[str, bytes] | float]], seed: int, ended: Side | None
) -> None:
    """Hours of recording are never lost to a message that nobody had thought of."""
    tapes = [tape_of(("C", b"first\n"), *script, seed=seed, ended_by=ended) for script in scripts]
    text = written(*tapes, mask=("ok",), unique=("PING",))
    assert "first" in text
