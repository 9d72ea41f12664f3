"""A tab of Locust's web page: latencies, schedule, connections, errors by class, generator; and downloads.

Locust's page asks for ``/stats/requests`` every two seconds and shows the rows that it finds there
under the tab's key. It runs in the single process or on the master, which have the whole record, so the
tab is the same for one process, for ``--processes`` and for workers on other machines.
"""

from __future__ import annotations

import json
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request
from locust.util.timespan import parse_timespan

from loadtest.count.counters import MESSAGES
from loadtest.errors import OptionsError
from loadtest.run.load_test import UNKNOWN_HOST, LoadTest
from loadtest.run.options import check_used, own_options, read_client_options, read_plan
from loadtest.run.sending import check_sending
from loadtest.run.shapes import make_shape
from loadtest.show import form, tables
from loadtest.show.outcome import RunOutcome

KEY: Final = "tcp"
COLUMNS: Final = (
    ("part", "Part"),
    ("what", "What"),
    ("count", "Count"),
    ("p50", "p50 (ms)"),
    ("p90", "p90 (ms)"),
    ("p99", "p99 (ms)"),
    ("p999", "p99.9 (ms)"),
    ("max", "Max (ms)"),
    ("note", "Note"),
)


def rows(load_test: LoadTest) -> list[dict[str, str]]:
    """The tab's rows, from the test so far."""
    record, plan = load_test.record, load_test.plan
    found: list[dict[str, str]] = []

    def add(part: str, what: str, count: str = "", note: str = "", times: list[str] | None = None) -> None:
        cells = dict(zip(("p50", "p90", "p99", "p999", "max"), times or [""] * 5, strict=True))
        found.append(
            {"name": f"{len(found):03}", "part": part, "what": what, "count": count, **cells, "note": note}
        )

    for check, text in (*load_test.troubles(), *tables.warnings(record)):
        add("Warning", check, note=text)
    for name, kind, samples, values, highest, out in tables.latency_rows(record):
        times = [tables.milliseconds(value) for value in [*values, highest]]
        note = "" if record.entries[name].kind not in MESSAGES or kind == "first byte" else plan.model
        note = "; ".join(filter(None, (note, out)))
        add("Latency", f"{name} {kind}", f"{samples:,}", note, times)
    pace = tables.pace(record, plan, load_test.users_at_most)
    if pace:
        add("Schedule", "pace", note=pace)
    add("Connections", "open now", f"{sum(record.open.values()):,}")
    add("Connections", "opened", f"{record.counts['opened']:,}")
    add("Connections", "requests aborted", f"{record.aborted:,}", "in flight when their users were stopped")
    for (name, group), count in record.failures.most_common(100):
        add("Errors", f"{name} {group}", f"{count:,}", record.samples.get(group, ""))
    for process, health in sorted(record.health.items()):
        if process != "master":
            add("Generator", process, note=tables.health_line(health))
    for note in load_test.notes:
        add("Shape", "knee", note=note)
    return found


def attach(outcome: RunOutcome, web_ui: Any, *, own_shape: bool) -> None:
    """Add the tab, the downloads, and a check of the form's options before a test starts."""
    load_test = outcome.load_test
    environment = load_test.environment
    own = [name for name in own_options() if name in vars(load_test.options)]
    web_ui.template_args["extended_tabs"] = [
        *web_ui.template_args.get("extended_tabs", []),
        {"title": "TCP", "key": KEY},
    ]
    web_ui.template_args["extended_tables"] = [
        *web_ui.template_args.get("extended_tables", []),
        {"key": KEY, "structure": [{"key": key, "title": title} for key, title in COLUMNS]},
    ]
    web_ui.template_args["extended_csv_files"] = [
        *web_ui.template_args.get("extended_csv_files", []),
        {
            "href": "./tcp/report.json",
            "title": "Download TCP report (JSON, for python -m benchmarks compare)",
        },
        {"href": "./tcp/report.html", "title": "Open TCP report (page)"},
    ]
    blueprint = Blueprint("tcp", __name__, url_prefix=getattr(load_test.options, "web_base_path", "") or None)

    @blueprint.route("/tcp/report.json")
    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def report_json() -> Response:
        text = json.dumps(outcome.report().to_json(), ensure_ascii=False, indent=1)
        headers = {"Content-Disposition": "attachment; filename=tcp-report.json"}
        return Response(text, mimetype="application/json", headers=headers)

    @blueprint.route("/tcp/report.html")
    @web_ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def report_html() -> Response:
        text = outcome.page()
        return Response(text, mimetype="text/html")

    @blueprint.route("/tcp/<name>")
    def static(name: str) -> Response:
        if name not in form.KINDS:
            return Response("no such file\n", status=404, mimetype="text/plain")
        return Response(form.static(name), mimetype=form.KINDS[name])

    def add_form(response: Response) -> Response:
        if response.mimetype == "text/html" and request.endpoint == "locust.index":
            response.set_data(form.with_options(response.get_data(as_text=True)))
        return response

    def add_rows(response: Response) -> Response:
        if request.path.endswith("/stats/requests") and response.is_json:
            data = response.get_json()
            # Locust keeps its answer for a while, and may hand the one that has our rows back to us
            others = [table for table in data.get("extended_stats", []) if table["key"] != KEY]
            data["extended_stats"] = [*others, {"key": KEY, "data": rows(outcome.load_test)}]
            response.set_data(json.dumps(data))
        return response

    def check_form() -> Response | None:
        """What the form says is checked as the command line is, before Locust starts anything."""
        if not (request.path.endswith("/swarm") and request.method == "POST"):
            return None
        wanted = dict(vars(load_test.options))
        given = {name: value for name, value in request.form.items() if name in own}
        for name, value in given.items():
            kind = type(wanted[name])
            try:
                wanted[name] = value == "true" if kind is bool else kind(value)
            except ValueError:
                message = f"--{name.replace('_', '-')} {value!r} is not a number"
                return jsonify({"success": False, "message": message, "host": environment.host})
        options = type(load_test.options)(**wanted)
        try:
            check_used(options, load_test.uses)
            plan = read_plan(options)
            check_sending(options, load_test.uses, load_test.kinds)
            known = "" if load_test.host == UNKNOWN_HOST else load_test.host
            read_client_options(options, request.form.get("host") or known, plan)
            if own_shape:
                environment.shape_class = make_shape(load_test, options)
            if request.form.get("run_time"):
                parse_timespan(request.form["run_time"])
        except OptionsError as error:
            return jsonify({"success": False, "message": str(error), "host": environment.host})
        except ValueError:
            return None  # Locust has its own words for a bad run time
        return None

    web_ui.app.after_request(add_form)
    web_ui.app.after_request(add_rows)
    web_ui.app.before_request(check_form)
    web_ui.app.register_blueprint(blueprint)
