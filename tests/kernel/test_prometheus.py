"""A real Prometheus scrapes an agent; what the dashboard and the alerts ask it, it can answer."""

import json
import os
import re
import signal
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.endurance.agent import AgentProcess
from tests.kernel import judge
from tests.kernel.conftest import JSON, Conf, Node

pytestmark = [
    pytest.mark.any_kernel,
    pytest.mark.once,  # there is an agent in any case
    pytest.mark.skipif(
        "CNI_NETKIT_PROMETHEUS" not in os.environ,
        reason="CNI_NETKIT_PROMETHEUS is not set: no Prometheus; tests/lab/fetch prometheus",
    ),
]

CONF = Path(__file__).parents[2] / "conf"
RULES = CONF / "prometheus" / "cni-netkit.rules.yaml"
DASHBOARD = json.loads((CONF / "grafana" / "cni-netkit.json").read_text())
SECONDS = 60.0
"""For two processes that begin, scrape and evaluate, on a busy machine."""

PAGES, PROMETHEUS = "127.0.0.1:19469", "127.0.0.1:19090"
CONFIGURATION = f"""
global:
  scrape_interval: 500ms
  evaluation_interval: 1s
rule_files: [{RULES}]
scrape_configs:
  - job_name: cni-netkit
    static_configs:
      - targets: ["{PAGES}"]
"""


def programs() -> Path:
    return Path(os.environ["CNI_NETKIT_PROMETHEUS"])


@dataclass
class Scraped:
    """A node with an agent, and a Prometheus on it."""

    node: Node
    agent: AgentProcess

    def query(self, expression: str) -> list[JSON]:
        """What an expression comes to now."""
        arguments = urllib.parse.urlencode({"query": expression})
        found: list[JSON] = self.api(f"query?{arguments}")["result"]
        return found

    def value(self, expression: str) -> float | None:
        """The value of an expression that comes to one, or to none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def names(self) -> set[str]:
        """The metrics that it has."""
        return set(self.api("label/__name__/values"))

    def api(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://{PROMETHEUS}/api/v1/{path}", timeout=30) as answer:
                said = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None
        assert said["status"] == "success", said
        return said["data"]


@pytest.fixture
def scraped(node: Node, launcher: Path, tmp_path: Path) -> Iterator[Scraped]:
    """Everything runs in the node's own namespace, on its loopback."""
    (tmp_path / "prometheus.yml").write_text(CONFIGURATION)
    log = (tmp_path / "prometheus.log").open("wb")
    with log, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(judge.DEADLINE)
        agent = AgentProcess(launcher, tmp_path, notices, ["--metrics", PAGES])
        agent.start()
        node.request = agent.request
        prometheus = subprocess.Popen(
            [
                programs() / "prometheus",
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/data",
                f"--web.listen-address={PROMETHEUS}",
            ],
            stdout=log,
            stderr=log,
            cwd=tmp_path,
        )
        try:
            made = Scraped(node, agent)
            judge.wait_for(lambda: _answers(prometheus, log.name), "Prometheus is ready", SECONDS)
            yield made
        finally:
            prometheus.kill()
            prometheus.wait()
            agent.end(signal.SIGKILL)


def _answers(prometheus: "subprocess.Popen[bytes]", log: str) -> bool:
    assert prometheus.poll() is None, Path(log).read_text()
    try:
        with urllib.request.urlopen(f"http://{PROMETHEUS}/-/ready", timeout=5):
            return True
    except OSError:
        return False


def test_it_scrapes_what_the_agent_did(scraped: Scraped, conf: Conf) -> None:
    """Requests by verb and code, how long they took, what is on record, what GC took back."""
    node = scraped.node
    configuration = conf(fallback="veth")
    one, two = node.container(), node.container()
    for each in (one, two):
        node.add(configuration, each)
    assert node.call("ADD", configuration, one).error["code"] == 103
    assert node.call("DEL", configuration, one).ok
    assert node.call("STATUS", configuration).ok
    expected = {
        'cni_netkit_requests_total{verb="ADD",code="0"}': 2,
        'cni_netkit_requests_total{verb="ADD",code="103"}': 1,
        'cni_netkit_requests_total{verb="DEL",code="0"}': 1,
        'cni_netkit_requests_total{verb="STATUS",code="0"}': 1,
        'cni_netkit_request_duration_seconds_count{verb="ADD"}': 3,
        'cni_netkit_phase_duration_seconds_count{verb="ADD",phase="device"}': 2,
        'cni_netkit_phase_duration_seconds_count{verb="DEL",phase="device"}': 1,
        'cni_netkit_attachments{network="net"}': 1,
        "cni_netkit_records_incomplete": 0,
        'up{job="cni-netkit"}': 1,
        "process_start_time_seconds > bool 0": 1,
    }

    def found() -> dict[str, float | None]:
        return {expression: scraped.value(expression) for expression in expected}

    judge.wait_for(lambda: found() == expected, "Prometheus has all of it", SECONDS)
    # The phases of the ADDs, together, are the ADDs.
    parts = 'sum(cni_netkit_phase_duration_seconds_sum{verb="ADD"})'
    whole = 'sum(cni_netkit_request_duration_seconds_sum{verb="ADD"})'
    assert scraped.value(f"{parts} / {whole}") == pytest.approx(1)
    assert node.call("GC", {**configuration, "cni.dev/valid-attachments": []}).ok
    judge.wait_for(lambda: scraped.value("cni_netkit_gc_last_released") == 1, "GC is told", SECONDS)
    judge.wait_for(lambda: not scraped.query("cni_netkit_attachments"), "nothing is left", SECONDS)


def test_a_restart_is_seen(scraped: Scraped) -> None:
    """As the alert has it, whatever the agent forgot."""
    began = judge.wait_for(
        lambda: scraped.value("process_start_time_seconds"), "it is scraped", SECONDS
    )
    scraped.agent.end(signal.SIGKILL)
    scraped.agent.start()
    judge.wait_for(
        lambda: (scraped.value("process_start_time_seconds") or 0) > began,
        "another one is scraped",
        SECONDS,
    )
    assert scraped.value("changes(process_start_time_seconds[1h])") == 1


def test_the_text_is_as_promtool_wants_it(scraped: Scraped) -> None:
    """Names, types, units, help."""
    with urllib.request.urlopen(f"http://{PAGES}/metrics", timeout=30) as page:
        text = page.read()
    done = subprocess.run(
        [programs() / "promtool", "check", "metrics"], input=text, capture_output=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def asked() -> Iterator[tuple[str, str]]:
    """Who asks, and what, with Grafana's variables as they would be."""
    variables = {"$node": ".*", "$verb": "ADD", "$__rate_interval": "1m", "$__range": "1h"}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in variables.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def test_what_is_asked_can_be_answered(scraped: Scraped, conf: Conf) -> None:
    """Each expression of the dashboard and of the alerts is one, and is of metrics that there are."""
    node = scraped.node
    configuration = conf(fallback="veth")
    node.add(configuration, node.container())
    judge.wait_for(lambda: scraped.query("cni_netkit_attachments"), "it is scraped", SECONDS)
    there = scraped.names()
    # There is no NIC here: tests/kernel/test_lease.py has its queues.
    with urllib.request.urlopen(f"http://{PAGES}/metrics", timeout=30) as page:
        there |= set(re.findall(r"^# TYPE (cni_netkit_nic_queues) ", page.read().decode(), re.M))
    expressions = list(asked())
    assert len(expressions) > 20
    for who, expression in expressions:
        scraped.query(expression)
        named = set(re.findall(r"\b(?:cni_netkit|process)_\w+|\bup\b", expression))
        assert named, (who, expression)
        assert named <= there, (who, named - there)
    # Of the panels that have something to show by now, those of the first row.
    for panel in DASHBOARD["panels"][:2]:
        (expression,) = [each for who, each in asked() if who == panel["title"]]
        assert scraped.value(expression) == 1, panel["title"]


def test_the_rules_are_rules(scraped: Scraped) -> None:
    """promtool finds nothing wrong, and Prometheus evaluates them."""
    judge.run(str(programs() / "promtool"), "check", "rules", str(RULES))

    def health() -> set[str]:
        return {
            rule["health"] for group in scraped.api("rules")["groups"] for rule in group["rules"]
        }

    judge.wait_for(lambda: health() == {"ok"}, "each is evaluated", SECONDS)
