"""Prometheus with the files that are shipped: rules that fire when they should, a dashboard with data."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from chat_gevent.command.deploy import FOLDER
from tests.chat_gevent.deploy.files import adapted, checked, free_port, running
from tests.conftest import require_tool
from tests.operate import ServerProcess, until
from tests.redis_server import RedisServer

RULE_TESTS = Path(__file__).parent / "alerts_test.yml"

SERVICE = """
from chat_gevent import Service

class Talk(Service):
    def started(self, server):
        self.server = server
    def message(self, message, client):
        self.server.broadcast(message, but=client)
        return message
"""

NAMES = re.compile(r"\b(?:chat_gevent|process)_\w+")


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    loaded: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    """Its panels that show something."""
    return [each for each in dashboard()["panels"] if each["type"] != "row"]


def queries() -> list[str]:
    """Its queries, with Grafana's variables as Grafana fills them in for all servers."""
    found = []
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "8s")
            for variable in dashboard()["templating"]["list"]:
                query = query.replace(f"${variable['name']}", variable.get("allValue", ""))
            assert "$" not in query
            found.append(query)
    return found


def alerts() -> list[dict[str, Any]]:
    """The alert rules."""
    [group] = yaml.safe_load((FOLDER / "prometheus-alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    """The configuration with the rules that it names."""
    said = checked(require_tool("promtool"), "check", "config", FOLDER / "prometheus.yml")
    assert f"{len(alerts())} rules found" in said


def test_the_rules_fire_when_they_should_and_not_before() -> None:
    """By promtool's own kind of test, which has each alert fire and be silent."""
    checked(require_tool("promtool"), "test", "rules", RULE_TESTS)
    fires: dict[str, set[bool]] = {}
    for test in yaml.safe_load(RULE_TESTS.read_text())["tests"]:
        for each in test["alert_rule_test"]:
            fires.setdefault(each["alertname"], set()).add(bool(each["exp_alerts"]))
    assert fires == {rule["alert"]: {True, False} for rule in alerts()}


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its interface."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            answer = json.loads(connection.getresponse().read())
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]

    def ready(self) -> bool:
        """Whether it answers."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            try:
                connection.request("GET", "/-/ready")
                return connection.getresponse().status == 200
            except ConnectionRefusedError:
                return False

    def values(self, query: str) -> list[float]:
        """What a query gives, of all series."""
        return [float(each["value"][1]) for each in self.ask("query", query=query)["result"]]


@pytest.fixture
def watched(
    operate: Callable[..., ServerProcess], tmp_path: Path
) -> Iterator[tuple[ServerProcess, Prometheus]]:
    """A server with a service and a backplane, two clients that talk all the time, and a Prometheus that
    scrapes it each second."""
    program = require_tool("prometheus")
    redis = RedisServer(tmp_path)
    (tmp_path / "talk.py").write_text(SERVICE)
    server = operate(
        *("--port", "0", "--admin", "127.0.0.1:0", "--handler", "talk:Talk", "--backplane", redis.url),
        cwd=tmp_path,
    )
    admin = server.logged(r"admin pages at http://(\S+)")[1]
    changes = {
        "scrape_interval: 15s": "scrape_interval: 1s",
        "evaluation_interval: 15s": "evaluation_interval: 1s",
    }
    changes['"10.0.0.11:12346", "10.0.0.12:12346", "10.0.0.13:12346"'] = f'"{admin}"'
    (tmp_path / "prometheus.yml").write_text(adapted("prometheus.yml", changes))
    (tmp_path / "prometheus-alerts.yml").write_text((FOLDER / "prometheus-alerts.yml").read_text())
    port = free_port()
    stop = threading.Event()
    talker = threading.Thread(target=talk, args=(server.address(), stop))
    options = (f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data")
    with running(program, *options, f"--web.listen-address=127.0.0.1:{port}", log=tmp_path / "log"):
        talker.start()
        try:
            prometheus = Prometheus(port)
            until(prometheus.ready, what="Prometheus is ready")
            yield server, prometheus
        finally:
            stop.set()
            talker.join(30)
            if redis.process is not None:
                redis.process.kill()
                redis.process.wait()


def talk(address: tuple[str, int], stop: threading.Event) -> None:
    """Have a client talk to another until told to stop."""
    with socket.create_connection(address, 30) as one, socket.create_connection(address, 30) as other:
        for number in itertools.count():
            if stop.wait(0.05):
                return
            line = b"message %d\n" % number
            one.sendall(line)
            assert one.recv(100) == line
            assert other.recv(100) == line


def test_the_dashboard_and_the_rules_read_a_real_server(watched: tuple[ServerProcess, Prometheus]) -> None:
    """Each query of the dashboard gives numbers, each rule can be evaluated, each metric that either names is
    one of the server's, and what Prometheus has counted is what the server has."""
    server, prometheus = watched
    until(lambda: prometheus.values("count_over_time(chat_gevent_messages_total[1m])") >= [4])
    until(lambda: prometheus.values('up{job="chat-gevent"}') == [1])

    def gives_numbers(query: str) -> bool:
        values = prometheus.values(query)
        return bool(values) and not any(map(math.isnan, values))

    for query in queries():
        until(partial(gives_numbers, query), what=query)  # a scrape that came too late leaves a gap
    assert prometheus.values("chat_gevent_messages_total")[0] <= server.metric("chat_gevent_messages_total")
    [rate] = prometheus.values("sum(rate(chat_gevent_messages_total[8s]))")
    assert 0 < rate < 40  # 20 at most; a scrape that comes late makes it look like more
    known = set(prometheus.ask("label/__name__/values"))
    for text in (*queries(), *(rule["expr"] for rule in alerts())):
        assert set(NAMES.findall(text)) <= known, text

    def states() -> dict[str, tuple[str, str]]:
        [group] = prometheus.ask("rules")["groups"]
        return {rule["name"]: (rule["health"], rule["state"]) for rule in group["rules"]}

    expected = {rule["alert"]: ("ok", "inactive") for rule in alerts()}
    until(lambda: states() == expected, what="all rules are evaluated, and silent")
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+).*, (\w+)\)", variable["definition"])
            assert asked is not None
            assert prometheus.ask(f"label/{asked[2]}/values", **{"match[]": asked[1]})


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    """Each has an id and a place of its own, a unit, a legend for each query, and the chosen data source."""
    places: set[tuple[int, int]] = set()
    count = 0
    for each in dashboard()["panels"]:
        place = each["gridPos"]
        assert place["x"] + place["w"] <= 24
        places |= {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        count += place["w"] * place["h"]
    assert len(places) == count
    assert len({each["id"] for each in dashboard()["panels"]}) == len(dashboard()["panels"])
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["legendFormat"] for target in panel["targets"])
