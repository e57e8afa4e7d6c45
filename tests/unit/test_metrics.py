"""Figures of the agent, and of `cni-netkit dra`; that a real Prometheus reads them is shown in tests/kernel."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cni_netkit import claims, facts
from cni_netkit.agent import health, metrics, server
from cni_netkit.agent.metrics import Metrics
from cni_netkit.agent.server import Agent
from cni_netkit.agent.watch import Watch
from cni_netkit.agent.wire import WireRequest
from cni_netkit.attachment import Attachment
from cni_netkit.dra import keeper, kubelet
from cni_netkit.dra import metrics as dra
from cni_netkit.facts import Nic
from cni_netkit.phases import Course
from cni_netkit.state import Store
from tests.unit.given import record
from tests.unit.test_admin_leases import DOWN, ETH7
from tests.unit.test_server import DEADLINE, Handler, ask, connect, handler, path, served, wait_for

__all__ = ["handler", "path"]


def samples(made: Metrics) -> dict[str, float]:
    """Each sample by name and labels, as a line of the text has them."""
    found = {}
    for family in text_string_to_metric_families(made.text().decode()):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Where records are read from; there is no NIC."""
    made = Store(tmp_path / "store")
    monkeypatch.setattr(metrics, "Store", lambda: made)
    monkeypatch.setattr(facts, "nics", lambda _host: [])
    return made


def course(verb: str, milliseconds: float = 1, code: int = 0, released: int = 0) -> Course:
    made = Course({"CNI_COMMAND": verb}, released=released)
    made.begun = [("read", made.began)]
    made.ended = made.began + int(milliseconds * 1e6)
    made.error = {"code": code, "msg": "no"} if code else None
    return made


@pytest.mark.usefixtures("store")
def test_requests_are_counted() -> None:
    """By verb and code, with how long they took."""
    made = Metrics()
    for each in (course("ADD", 3), course("ADD", 30, 11), course("ADD", 30_000), course("DEL")):
        made.end(each)
    made.refused()
    found = samples(made)
    assert found['cni_netkit_requests_total{code="0",verb="ADD"}'] == 2
    assert found['cni_netkit_requests_total{code="11",verb="ADD"}'] == 1
    assert found['cni_netkit_requests_total{code="0",verb="DEL"}'] == 1
    # So that a rate is right from the first one on.
    assert found['cni_netkit_requests_total{code="0",verb="GC"}'] == 0
    assert found["cni_netkit_requests_refused_total"] == 1
    durations = "cni_netkit_request_duration_seconds"
    assert found[f'{durations}_bucket{{le="0.002",verb="ADD"}}'] == 0
    assert found[f'{durations}_bucket{{le="0.005",verb="ADD"}}'] == 1
    assert found[f'{durations}_bucket{{le="10.0",verb="ADD"}}'] == 2
    assert found[f'{durations}_bucket{{le="+Inf",verb="ADD"}}'] == 3
    assert found[f'{durations}_sum{{verb="ADD"}}'] == pytest.approx(30.033)
    assert found['cni_netkit_phase_duration_seconds_count{phase="read",verb="ADD"}'] == 3


@pytest.mark.usefixtures("store")
def test_none_is_lost() -> None:
    """Whoever ends meanwhile, in how many threads, and however rarely somebody asks."""
    made = Metrics()
    number, threads = 5 * metrics.NOTED, 4
    begin = threading.Barrier(threads + 1)

    def work() -> None:
        begin.wait()
        for _ in range(number):
            made.end(course("ADD"))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for each in workers:
        each.start()
    begin.wait()
    seen = [samples(made)['cni_netkit_requests_total{code="0",verb="ADD"}'] for _ in range(5)]
    for each in workers:
        each.join()
    found = samples(made)
    assert seen == sorted(seen)
    for name in ("requests_total", "request_duration_seconds_count"):
        (value,) = [found[each] for each in found if f"netkit_{name}" in each and "ADD" in each]
        assert value == number * threads
    for _ in range(10 * metrics.NOTED):
        made.end(course("ADD"))
    assert len(made._ended) < metrics.NOTED, "they are kept till somebody asks"


@pytest.mark.usefixtures("store")
def test_nobody_makes_up_labels() -> None:
    """Whatever CNI_COMMAND says, and whatever code a delegated plugin has."""
    made = Metrics()
    for number in range(50):
        made.end(course(f"verb{number}", code=4))
        made.end(course("ADD", code=200 + number))
    found = samples(made)
    assert found['cni_netkit_requests_total{code="4",verb="other"}'] == 50
    assert found['cni_netkit_requests_total{code="other",verb="ADD"}'] == 50
    assert len([name for name in found if name.startswith("cni_netkit_requests_total")]) == 8


@pytest.mark.usefixtures("store")
def test_the_page_names_every_figure(path: str) -> None:
    """And no other; the library's own are said to be that."""
    with watched(path) as (_, made):
        text = made.text().decode()
    assert documented("Figures") == shown(text)


@pytest.mark.usefixtures("store")
def test_the_page_names_every_figure_of_dra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Likewise."""
    monkeypatch.setattr(claims, "ROOT", tmp_path / "claims")
    made = dra.Figures(kubelet.Driver("node"), keeper.Keeper("node", bool))
    assert documented("`cni-netkit dra`") == shown(made.text().decode())


def shown(text: str) -> set[str]:
    """Names of figures on a page in Prometheus' format, without the library's own."""
    found = set(re.findall(r"^# TYPE (\S+)", text, re.M))
    return {name for name in found if not name.startswith("process_")}


def documented(heading: str) -> set[str]:
    """Those that a section of the documentation has."""
    page = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    (section,) = (each for each in page.split("\n## ") if each.startswith(f"{heading}\n"))
    return set(re.findall(r"^\| `(cni_netkit_\w+)` \|", section, re.M))


@pytest.mark.usefixtures("store")
def test_what_gc_did() -> None:
    made = Metrics()
    assert samples(made)["cni_netkit_gc_last_timestamp_seconds"] == 0
    made.end(course("GC", released=3))
    made.end(course("GC", released=2))
    found = samples(made)
    assert found["cni_netkit_gc_released_total"] == 5
    assert found["cni_netkit_gc_last_released"] == 2
    assert found["cni_netkit_gc_last_timestamp_seconds"] > 1.7e9


def test_records_and_queues(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are when somebody asks, not when it began."""
    made = Metrics()
    assert samples(made)["cni_netkit_records_incomplete"] == 0
    for network, container, complete in (("a", "1", True), ("a", "2", True), ("b", "3", False)):
        store.create(record(Attachment(network, container, "eth0"), complete=complete))
    (Path(store._root) / "a" / "4:eth0.json").write_text('{"format": 1000}')
    monkeypatch.setattr(facts, "nics", lambda _host: [ETH7, DOWN])
    found = samples(made)
    assert found['cni_netkit_attachments{network="a"}'] == 2
    assert 'cni_netkit_attachments{network="b"}' not in found
    assert found["cni_netkit_records_incomplete"] == 1
    assert found["cni_netkit_records_unreadable"] == 1
    # ETH7 has six: three leased, one free, two that somebody else has. One that is down has none.
    queues = {name: value for name, value in found.items() if "nic_queues" in name}
    assert queues == {
        'cni_netkit_nic_queues{nic="eth7",state="free"}': 1,
        'cni_netkit_nic_queues{nic="eth7",state="leased"}': 3,
        'cni_netkit_nic_queues{nic="eth7",state="in use"}': 2,
    }


@pytest.mark.usefixtures("store")
def test_what_cannot_be_read_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest is there, and so is the news of it."""

    def fail(_host: object) -> list[Nic]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(facts, "nics", fail)
    found = samples(Metrics())
    assert found['cni_netkit_collector_failed{of="queues"}'] == 1
    assert found['cni_netkit_collector_failed{of="records"}'] == 0
    assert found["cni_netkit_records_incomplete"] == 0
    assert "Input/output error" in capsys.readouterr().err


@contextmanager
def watched(path: str) -> Iterator[tuple[Agent, Metrics]]:
    """An agent whose metrics are asked for."""
    made = Metrics()
    with server.listen(path) as listener, served(listener, watch=Watch(made)) as agent:
        made.watch(agent)
        yield agent, made


@pytest.mark.usefixtures("store")
def test_an_agent_counts(path: str) -> None:
    """What it answers, with the phases; what it refuses; what it was sent that is no request."""
    with watched(path) as (_, made):
        ask(path)
        ask(path, WireRequest({"CNI_COMMAND": "ADD"}, b""))
        with connect(path) as connection:
            connection.sendall(b"garbage, and not a little of it")

        def counted() -> bool:
            found = samples(made)
            return (
                found['cni_netkit_requests_total{code="0",verb="VERSION"}'] == 1
                and found.get('cni_netkit_requests_total{code="4",verb="ADD"}') == 1
                and found["cni_netkit_requests_refused_total"] == 1
            )

        wait_for(counted, "all three are counted")
        phases = re.findall(
            r'phase_duration_seconds_count\{phase="(\w+)",verb="ADD"', made.text().decode()
        )
        assert phases == ["turn", "read"]


@pytest.mark.usefixtures("store")
def test_how_busy_it_is(path: str, request: pytest.FixtureRequest) -> None:
    with watched(path) as (_, made):
        waiting: Handler = request.getfixturevalue("handler")
        assert samples(made)["cni_netkit_requests_in_progress"] == 0
        threads = [threading.Thread(target=ask, args=(path,)) for _ in range(2)]
        for each in threads:
            each.start()
        # Two compute at a time.
        wait_for(lambda: len(waiting.begun) == 2, "both are at work")
        assert samples(made)["cni_netkit_requests_in_progress"] == 2
        assert samples(made)["cni_netkit_requests_waiting"] == 0
        waiting.go.set()
        for each in threads:
            each.join()
        wait_for(lambda: samples(made)["cni_netkit_requests_in_progress"] == 0, "all is done")


def test_whatever_is_wrong_with_them_the_request_is_answered(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_self: Metrics, _course: Course) -> None:
        raise ValueError("out of figures")

    monkeypatch.setattr(Metrics, "end", fail)
    with watched(path):
        for _ in range(3):
            assert ask(path).status == 0
    assert capsys.readouterr().err.count("out of figures") == 3


# --- Whether it is well ---------------------------------------------------------------------------


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where records are, for the page /readyz."""
    root = tmp_path / "records"
    monkeypatch.setattr(health, "Store", lambda: Store(root))
    return root


def test_it_is_well_while_it_answers(path: str, ready: Path) -> None:
    """And not when it is being stopped, or has gone."""
    pages = health.of(path)
    with watched(path):
        assert pages["/healthz"]().status == 200
        answer = pages["/readyz"]()
        assert (answer.status, answer.body.count(b"ok: ")) == (200, 3)
    for page in pages.values():
        answer = page()
        assert answer.status == 503
        assert (
            answer.body
            == f"failed: nobody takes requests at {path}: No such file or directory\n".encode()
        )


def test_it_is_not_well_if_it_does_not_answer(
    path: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(health, "SECONDS", 0.2)
    with watched(path):
        waiting: Handler = request.getfixturevalue("handler")
        answer = health.of(path)["/healthz"]()
        assert answer.status == 503
        assert b"was not received in time" in answer.body
        waiting.go.set()


def test_it_is_not_ready_without_records(path: str, ready: Path) -> None:
    """Well all the same: to start it again would change nothing."""
    ready.write_text("in the way")
    with watched(path):
        assert health.of(path)["/healthz"]().status == 200
        answer = health.of(path)["/readyz"]()
    assert answer.status == 503
    assert b"Not a directory" in answer.body
    assert str(ready).encode() in answer.body


# --- On the command line --------------------------------------------------------------------------


def agent_says(*arguments: str, without: str = "") -> tuple[int, str]:
    """How an agent ends that does not start; `without`: a package that is not there."""
    hide = f"import sys; sys.modules['{without}'] = None; " if without else ""
    code = f"{hide}from cni_netkit.admin.main import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "agent", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    return done.returncode, done.stderr


def test_an_address_that_is_not_loopback(path: str) -> None:
    status, said = agent_says("--socket", path, "--metrics", "0.0.0.0:9100")
    assert status == 2
    assert "--metrics: 0.0.0.0:9100 is not a loopback address" in said


def test_an_address_that_is_taken(path: str) -> None:
    """Whoever was faster: requests are answered all the same, and the log says what is missing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "cni_netkit.admin.main", "agent"]
        with subprocess.Popen(
            [*command, "--socket", path, "--metrics", address], stderr=subprocess.PIPE, text=True
        ) as agent:
            assert agent.stderr
            told = json.loads(agent.stderr.readline())
            assert told["event"].startswith(
                f"no /healthz, /readyz, /metrics: listen on {address}: Address"
            )
            assert ask(path).status == 0
            agent.terminate()
        assert agent.returncode == 0


def test_a_package_that_is_missing(path: str) -> None:
    status, said = agent_says(
        "--socket", path, "--metrics", "127.0.0.1:1", without="prometheus_client"
    )
    assert status == 1
    assert "pip install 'cni-netkit[metrics]'" in said


def test_nothing_is_loaded_that_nobody_asked_for() -> None:
    """Neither by the agent nor by the plugin."""
    code = "import sys, cni_netkit.__main__, cni_netkit.verbs, cni_netkit.agent.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "cni_netkit" in loaded
    assert not loaded & {"prometheus_client", "opentelemetry", "asyncio", "requests"}
