"""The dashboard, against Grafana's own description of one; tests/kernel asks Prometheus what it asks."""

import json
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

FILE = Path(__file__).parents[2] / "conf" / "grafana" / "cni-netkit.json"


@pytest.fixture
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def understood(given: dict[str, Any]) -> Any:
    """What Grafana's SDK, which is made of its schema, reads of it and writes again."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(given)))


def lost(given: Any, back: Any, where: str = "") -> list[str]:
    """What did not come back: a key that the schema has not, or a value that it changed."""
    if isinstance(given, dict) and isinstance(back, dict):
        return [
            each
            for key, value in given.items()
            for each in (
                lost(value, back[key], f"{where}.{key}") if key in back else [f"{where}.{key}"]
            )
        ]
    if isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        pairs = enumerate(zip(given, back, strict=True))
        return [each for n, (one, two) in pairs for each in lost(one, two, f"{where}[{n}]")]
    return [] if given == back else [where]


def test_grafana_knows_every_key(dashboard: dict[str, Any]) -> None:
    assert lost(dashboard, understood(dashboard)) == []


@pytest.mark.parametrize("where", ["", "panels", "targets", "options", "defaults"])
def test_a_key_that_it_does_not_know_is_found(dashboard: dict[str, Any], where: str) -> None:
    """The test above would notice, in all parts of it."""
    panel = dashboard["panels"][-1]
    places: dict[str, dict[str, Any]] = {
        "": dashboard,
        "panels": panel,
        "targets": panel["targets"][0],
        "options": panel["options"],
        "defaults": panel["fieldConfig"]["defaults"],
    }
    places[where]["legendFormatt"] = "x"
    (found,) = lost(dashboard, understood(dashboard))
    assert found.endswith(".legendFormatt")


def test_panels_lie_beside_each_other(dashboard: dict[str, Any]) -> None:
    """None covers another, none is wider than the screen, each has a number of its own."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
