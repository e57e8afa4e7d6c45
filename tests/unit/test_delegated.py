"""Delegation to other IPAM plugins (cni_netkit.ipam.delegated)."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cni_netkit.ipam import choose
from cni_netkit.ipam.delegated import Delegated
from tests.unit.given import context, refused

PLUGIN = """#!{python}
import json, os, sys
from pathlib import Path
here = Path({here!r})
call = {{"environment": dict(os.environ), "stdin": sys.stdin.read()}}
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(call) + "\\n")
verb = os.environ["CNI_COMMAND"]
answer = json.loads((here / "answers").read_text()).get(verb, {{}})
print("plugin says hello", file=sys.stderr)
sys.stdout.write(answer.get("stdout", ""))
sys.exit(answer.get("status", 0))
"""

RESULT: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["1.1.1.1"]},
}
ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=pod",
    "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "PATH": "/usr/bin:/bin",
}


@dataclass
class Plugin:
    """A plugin that does as told and remembers what it was asked."""

    folder: Path

    def will(self, verb: str, stdout: str = "", status: int = 0) -> None:
        """Lay down how it answers a verb; without, it succeeds in silence."""
        path = self.folder / "answers"
        path.write_text(
            json.dumps({**json.loads(path.read_text()), verb: {"stdout": stdout, "status": status}})
        )

    def calls(self) -> list[dict[str, Any]]:
        """Environment and standard input of each call."""
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def verbs(self) -> list[str]:
        """What it was asked."""
        return [call["environment"]["CNI_COMMAND"] for call in self.calls()]

    def ipam(self, environment: Mapping[str, str] = ENVIRONMENT, **more: Any) -> Delegated:
        """The delegation to it."""
        path = ("/nonexistent", str(self.folder), "/usr/bin")
        chosen = choose(context({"type": "fake"}, path=path, environment=environment, **more))
        assert isinstance(chosen, Delegated)
        return chosen


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    """A plugin named fake."""
    (tmp_path / "answers").write_text("{}")
    program = tmp_path / "fake"
    program.write_text(PLUGIN.format(python=sys.executable, here=str(tmp_path)))
    program.chmod(0o755)
    return Plugin(tmp_path)


def test_add(plugin: Plugin) -> None:
    """ADD gives the plugin's result."""
    plugin.will("ADD", json.dumps(RESULT))
    result = plugin.ipam().add()
    assert list(result.ips) == RESULT["ips"]
    assert list(result.routes) == RESULT["routes"]
    assert result.dns == RESULT["dns"]
    assert plugin.verbs() == ["ADD"]


def test_add_in_an_old_version(plugin: Plugin) -> None:
    """A result in the form of 0.2.0 is understood, with and without its version."""
    for result in (
        {"ip4": {"ip": "10.1.0.2/24"}},
        {"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.2/24"}},
    ):
        plugin.will("ADD", json.dumps(result))
        assert plugin.ipam(version="0.2.0").add().ips == ({"address": "10.1.0.2/24"},)


def test_what_the_plugin_gets(plugin: Plugin) -> None:
    """Standard input is the whole configuration, the environment ours with the attachment's."""
    plugin.will("ADD", json.dumps(RESULT))
    plugin.ipam(runtimeConfig={"ips": ["ü"]}).add()
    (call,) = plugin.calls()
    assert json.loads(call["stdin"]) == {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "netkit",
        "ipam": {"type": "fake"},
        "runtimeConfig": {"ips": ["ü"]},
    }
    expected = {
        **ENVIRONMENT,
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "/run/netns/c1",
        "CNI_PATH": f"/nonexistent:{plugin.folder}:/usr/bin",
    }
    assert expected.items() <= call["environment"].items()


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "STATUS", "GC"])
def test_other_verbs(plugin: Plugin, verb: str) -> None:
    """Every other verb is passed on by its name, and what the plugin prints is not looked at."""
    plugin.will(verb, "whatever")
    ipam = plugin.ipam()
    match verb:
        case "DEL":
            ipam.delete()
        case "CHECK":
            ipam.check()
        case "STATUS":
            ipam.status()
        case _:
            ipam.collect({("c1", "eth0")})
    assert plugin.verbs() == [verb]
    assert plugin.calls()[0]["environment"]["TRACEPARENT"] == ENVIRONMENT["TRACEPARENT"]


def test_gc_names_the_valid_attachments(plugin: Plugin) -> None:
    """GC of the plugin has the list of valid attachments as ours had it."""
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    more: dict[str, Any] = {"cni.dev/valid-attachments": valid}
    plugin.ipam(**more).collect({("c1", "eth0")})
    assert json.loads(plugin.calls()[0]["stdin"])["cni.dev/valid-attachments"] == valid


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "STATUS", "GC"])
@pytest.mark.parametrize("code", [2, 11, 50, 51, 113, 999])
def test_error_keeps_its_code(plugin: Plugin, verb: str, code: int) -> None:
    """The plugin's error is raised with its own code, message and details."""
    error = {"cniVersion": "1.1.0", "code": code, "msg": "no luck", "details": "try again"}
    plugin.will(verb, json.dumps(error), status=1)
    ipam = plugin.ipam()
    actions: dict[str, Callable[[], object]] = {
        "ADD": ipam.add,
        "DEL": ipam.delete,
        "CHECK": ipam.check,
        "STATUS": ipam.status,
        "GC": lambda: ipam.collect([]),
    }
    with refused(code, verb, "fake", "no luck", "try again"):
        actions[verb]()


@pytest.mark.parametrize(
    "output", ["", "panic: oops", "[]", '{"msg": "no code"}', '{"code": "7", "msg": "x"}']
)
def test_failure_without_an_error_object(plugin: Plugin, output: str) -> None:
    """A plugin that fails without an error object is error 999, with what it printed."""
    plugin.will("DEL", output, status=3)
    with refused(999, "DEL of the IPAM plugin fake", "exit status 3", output):
        plugin.ipam().delete()


def test_del_after_a_failed_add(plugin: Plugin) -> None:
    """After a failed ADD the plugin is asked to DEL, and the error stays that of ADD."""
    plugin.will("ADD", '{"code": 11, "msg": "later"}', status=1)
    with refused(11, "later") as error:
        plugin.ipam().add()
    assert plugin.verbs() == ["ADD", "DEL"]
    assert error.details == ""


def test_del_after_a_failed_add_fails_too(plugin: Plugin) -> None:
    """If that DEL fails as well, it is a note on the first error."""
    plugin.will("ADD", '{"code": 11, "msg": "later"}', status=1)
    plugin.will("DEL", '{"code": 5, "msg": "disk full"}', status=1)
    with refused(11, "later") as error:
        plugin.ipam().add()
    assert "undoing failed too" in error.details
    assert "disk full" in error.details


@pytest.mark.parametrize(
    "output",
    [
        "",
        "hello",
        "[]",
        "null",
        '{"ips": [{"address": "nonsense"}]}',
        '{"ips": ["10.1.0.2/24"]}',
        '{"routes": [{"dst": "default"}]}',
    ],
)
def test_garbage(plugin: Plugin, output: str) -> None:
    """A plugin that succeeds without a result is error 6, and is asked to DEL what it did."""
    plugin.will("ADD", output)
    with refused(6):
        plugin.ipam().add()
    assert plugin.verbs() == ["ADD", "DEL"]


def test_a_result_without_addresses(plugin: Plugin) -> None:
    """An empty result is a result."""
    plugin.will("ADD", "{}\n")
    assert plugin.ipam().add().ips == ()


@pytest.mark.parametrize("name", ["missing", "../fake", "sub/fake", "", ".."])
def test_no_such_plugin(plugin: Plugin, name: str) -> None:
    """A plugin that is not in CNI_PATH is error 7; a path is no name of a plugin."""
    (plugin.folder / "sub").mkdir()
    (plugin.folder / "sub" / "fake").write_bytes((plugin.folder / "fake").read_bytes())
    (plugin.folder / "sub" / "fake").chmod(0o755)
    chosen = choose(context({"type": name}, path=(str(plugin.folder), str(plugin.folder / "sub"))))
    with refused(7, f'there is no plugin "{name}"', str(plugin.folder)) as error:
        chosen.add()
    assert "undoing" not in error.details
    assert plugin.calls() == []


def test_plugin_that_is_not_executable(plugin: Plugin, tmp_path: Path) -> None:
    """A file without the right to execute it is passed over for one further on."""
    other = tmp_path / "first"
    other.mkdir()
    (other / "fake").write_text("not executable")
    path = (str(other), str(plugin.folder))
    choose(context({"type": "fake"}, path=path)).delete()
    assert plugin.verbs() == ["DEL"]


def test_plugin_that_cannot_be_executed(tmp_path: Path) -> None:
    """A file that the kernel cannot execute is error 5."""
    (tmp_path / "fake").write_text("no program")
    (tmp_path / "fake").chmod(0o755)
    with refused(5, "execute", str(tmp_path / "fake")):
        choose(context({"type": "fake"}, path=(str(tmp_path),))).delete()


def test_plugin_that_does_not_read(tmp_path: Path) -> None:
    """A plugin that ends without reading its standard input does no harm."""
    (tmp_path / "fake").write_text("#!/bin/sh\nexec true\n")
    (tmp_path / "fake").chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin"}
    config: dict[str, Any] = {"filler": "x" * 1_000_000}
    choose(
        context({"type": "fake"}, path=(str(tmp_path),), environment=environment, **config)
    ).delete()


def test_standard_error_is_passed_through(
    plugin: Plugin, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the plugin writes to standard error goes to ours, and nothing to standard output."""
    plugin.will("ADD", json.dumps(RESULT))
    plugin.ipam().add()
    assert capfd.readouterr() == ("", "plugin says hello\n")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"ips": [], "dns": {"a": NaN}}'])
def test_an_answer_that_nothing_can_read(plugin: Plugin, text: str) -> None:
    """Nested without end, or with what is no number: error 6."""
    plugin.will("ADD", text)
    with refused(6, "printed no result"):
        plugin.ipam().add()


@pytest.mark.parametrize("code", [0, -1, True, 2**32, "7", None])
def test_an_error_with_a_code_that_is_none(plugin: Plugin, code: object) -> None:
    """It is as good as no error object: 0 would be success for some."""
    plugin.will("ADD", json.dumps({"code": code, "msg": "no"}), status=1)
    with refused(999, "exit status 1"):
        plugin.ipam().add()
