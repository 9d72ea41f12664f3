"""Whether the messages that the options ask for can be sent at all: tried before a test starts.

A framing can't carry a message that is longer than its count can say, or that has its delimiter within. Users
would find that out one after another, each time they want to send.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtest.errors import OptionsError
from loadtest.framing import ReplyFraming
from loadtest.messages import check_messages
from loadtest.run.options import read_plan


def check_sending(
    options: Any, uses: Sequence[tuple[str, set[str]]], kinds: Sequence[tuple[str, ReplyFraming | None]]
) -> None:
    """Try the messages of those user classes that send what the options say. Raises OptionsError.

    ``uses`` has each class's name and the options it goes by, ``kinds`` its host and its own framing.
    """
    for (_, used), (_, framing) in zip(uses, kinds, strict=True):
        if "message_size" not in used:
            continue
        plan = read_plan(options, framing)
        try:
            check_messages(plan.framing, plan.message_size, plan.template)
        except ValueError as error:
            said = f"{error}; choose another --framing, --message-size or --message-template"
            raise OptionsError(said) from None
