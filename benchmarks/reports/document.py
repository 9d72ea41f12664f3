"""Whether a JSON document is a report of this version: what is asked before anything in it is read."""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import Any, Final, cast

SCHEMA: Final = "chat_gevent.report"
SCHEMA_VERSION: Final = 1


class ReportError(ValueError):
    """A file is no report that can be read; the message is one line for a person and names the file."""


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the reports that this program writes and reads."""
    text = (
        files("benchmarks.reports")
        .joinpath(f"schema/report-{SCHEMA_VERSION}.json")
        .read_text(encoding="utf-8")
    )
    return cast(dict[str, Any], json.loads(text))


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json_schema())


def check_version(document: object, where: str) -> None:
    """Raise :class:`ReportError` unless ``document`` says that it is a report of this version."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ReportError(f'{where}: not a report: it does not say "schema": "{SCHEMA}"')
    version = document.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise ReportError(f"{where}: not a report: schema_version is {version!r}, not a number")
    if version < SCHEMA_VERSION:
        raise ReportError(
            f"{where}: schema version {version} is older than {SCHEMA_VERSION}, the oldest "
            "this program reads; measure again"
        )
    if version > SCHEMA_VERSION:
        raise ReportError(
            f"{where}: schema version {version} is newer than {SCHEMA_VERSION}, the newest "
            "this program reads; update chat_gevent"
        )


def check_schema(document: dict[str, Any], where: str) -> None:
    """Raise :class:`ReportError` with the place and the fault that matter most, if there is one."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(document))
    if error is not None:
        place = "/".join(str(step) for step in error.absolute_path) or "the report"
        message = error.message if len(error.message) <= 160 else error.message[:157] + "..."
        raise ReportError(f"{where}: not a valid report: {place}: {' '.join(message.split())}")
