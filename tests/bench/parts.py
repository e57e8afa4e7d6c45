"""What is measured, part by part; whoever is compared takes turns.

Containers are fresh and made before anything is timed, and stay until the part's node goes: the
kernel clears namespaces away in the background, which would disturb the next one.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tests.bench import process
from tests.bench.contenders import AGENT, BRIDGE, PTP, PYTHON, Cast, Contender, Empty, Plugin
from tests.bench.floor import Floor
from tests.bench.node import ROOT, Container, Node, Options, nodes

WARM_UP = 2
"""Rounds that do not count."""

VERBS = ("ADD", "CHECK", "STATUS", "DEL")
AT_ONCE = {1: 1, 10: 4, 100: 8}
"""How many, and by what to divide the rounds."""

PAGES, SPANS = "127.0.0.1:19469", "http://127.0.0.1:4318"
COMPUTED = "ADD and DEL, what the agent computes"
FEW = 10
FILLING = 20
CYCLES_AT_ONCE = 20


@dataclass
class Row:
    """One line of the table: samples in milliseconds, or kB for memory."""

    group: str
    verb: str
    who: str
    samples: list[float] = field(default_factory=list)
    against: "Row | None" = None


Rows = list[Row]


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    runs: int
    containers: int
    cycles: int

    @property
    def dual_runs(self) -> int:
        """The reference plugins take seconds for each."""
        return max(3, self.runs // 5)

    def rounds_at_once(self, number: int) -> int:
        """Fewer where each is many."""
        return max(3, self.runs // AT_ONCE[number])


def one_address(cast: Cast, sizes: Sizes) -> Rows:
    """Every verb, one at a time, one IPv4 address."""
    return _verbs(cast, "one address", sizes.runs, dual=False)


def dual_stack(cast: Cast, sizes: Sizes) -> Rows:
    """Every verb, one at a time, IPv4 and IPv6."""
    return _verbs(cast, "dual stack", sizes.dual_runs, dual=True)


def at_once(cast: Cast, sizes: Sizes) -> Rows:
    """Several ADDs begun together, until the last is done; then their DELs."""
    rows: Rows = []
    for number in AT_ONCE:
        group = f"{number} at once"
        contenders: list[Plugin | Empty] = [cast.plugin(AGENT), cast.plugin(PTP), cast.nobody()]
        table = _table(group, ("ADD", "DEL"), contenders, PTP)
        rounds = sizes.rounds_at_once(number)
        with nodes() as (node,):
            crowds = [
                [node.containers(number) for _ in contenders] for _ in range(rounds + WARM_UP)
            ]
            for turn, crowd in enumerate(crowds):
                for verb in ("ADD", "DEL"):
                    for place in _order(turn, len(contenders)):
                        who = contenders[place]
                        if verb in who.verbs:
                            took = _together(who, verb, crowd[place])
                            _note(table, turn, verb, who, took)
        rows += table.values()
    return rows


def crowded(cast: Cast, sizes: Sizes) -> Rows:
    """ADD and DEL on a node with few containers and on one with many, taking turns."""
    few, many = f"{FEW} on the node", f"{sizes.containers} on the node"
    agent = cast.plugin(AGENT)
    floor = Floor(cast.kind, agent.number)
    both: list[Contender] = [agent, floor]
    tables = {group: _table(group, ("ADD", "DEL"), both, "") for group in (few, many)}
    for key, row in tables[many].items():
        row.against = tables[few][key]
    with nodes(Options(), Options()) as places:
        groups = dict(zip((few, many), places, strict=True))
        for node, number in zip(places, (FEW, sizes.containers), strict=True):
            node.enter()
            _fill(agent, node.containers(number))
        fresh = {}
        for group, node in groups.items():
            node.enter()
            fresh[group] = [node.containers(2) for _ in range(sizes.runs + WARM_UP)]
        for turn in range(sizes.runs + WARM_UP):
            for verb in ("ADD", "DEL"):
                for group in (few, many) if turn % 2 else (many, few):
                    groups[group].enter()
                    for who, container in zip(both, fresh[group][turn], strict=True):
                        _note(tables[group], turn, verb, who, who.measure(verb, container))
    return [*tables[few].values(), *tables[many].values()]


def observed(cast: Cast, sizes: Sizes) -> Rows:
    """What metrics and traces cost: agents that tell nothing, and those that do, taking turns.

    They are scraped, and somebody takes the spans.
    """
    kinds = {
        "nothing is told": Options(),
        "the same": Options(),
        "metrics": Options(("--metrics", PAGES)),
        "metrics and traces": Options(("--metrics", PAGES), {"OTEL_EXPORTER_OTLP_ENDPOINT": SPANS}),
    }
    plain, *others = kinds
    agents = {who: replace(cast.plugin(AGENT), label=who) for who in kinds}
    tables = {who: _table("observed", ("ADD", "DEL"), [agents[who]], "") for who in kinds}
    for who in kinds:
        tables[who][COMPUTED, who] = Row("observed", COMPUTED, who)
    for who in others:
        for key, row in tables[who].items():
            row.against = tables[plain][key[0], plain]
    with contextlib.ExitStack() as stack:
        places = dict(zip(kinds, stack.enter_context(nodes(*kinds.values())), strict=True))
        fresh = {}
        for who, node in places.items():
            node.enter()
            stack.enter_context(_collected(node))
            fresh[who] = node.containers(sizes.runs + WARM_UP)
        for turn in range(sizes.runs + WARM_UP):
            before = {who: node.agent_milliseconds() for who, node in places.items()}
            for verb in ("ADD", "DEL"):
                for place in _order(turn, len(kinds)):
                    who = [*kinds][place]
                    places[who].enter()
                    took = agents[who].measure(verb, fresh[who][turn])
                    _note(tables[who], turn, verb, agents[who], took)
            for who, node in places.items():
                computed = node.agent_milliseconds() - before[who]
                _note(tables[who], turn, COMPUTED, agents[who], computed)
    return sorted(
        (row for table in tables.values() for row in table.values()), key=lambda row: row.verb
    )


@contextlib.contextmanager
def _collected(node: Node) -> Iterator[None]:
    """Somebody in the node's namespaces who scrapes the agent, and takes its spans."""
    command = [sys.executable, "-m", "tests.bench.collector", PAGES, SPANS]
    with subprocess.Popen(command, cwd=ROOT) as collector:
        try:
            yield
        finally:
            collector.kill()


def memory(cast: Cast, sizes: Sizes) -> Rows:
    """The agent's resident memory as ADDs and DELs go by."""
    agent = cast.plugin(AGENT)
    rows: Rows = []
    with nodes() as (node,):
        crowd = node.containers(CYCLES_AT_ONCE)
        done = 0
        for mark in _marks(sizes.cycles):
            while done < mark:
                for verb in ("ADD", "DEL"):
                    process.together([agent.call(verb, each) for each in crowd])
                done += len(crowd)
            resident = float(node.agent_kibibytes())
            first = rows[0] if rows else None
            rows.append(Row("agent's memory", "kB", f"after {mark} ADD+DEL", [resident], first))
    return rows


PARTS = {
    "single": one_address,
    "dual": dual_stack,
    "burst": at_once,
    "crowd": crowded,
    "observed": observed,
    "memory": memory,
}


def _verbs(cast: Cast, group: str, runs: int, *, dual: bool) -> Rows:
    contenders: list[Contender] = [
        *(cast.plugin(label, dual=dual) for label in (AGENT, PYTHON, PTP, BRIDGE)),
        Floor(cast.kind, dual=dual),
        cast.nobody(),
    ]
    table = _table(group, VERBS, contenders, PTP)
    with nodes() as (node,):
        fresh = [node.containers(len(contenders)) for _ in range(runs + WARM_UP)]
        for turn, containers in enumerate(fresh):
            for verb in VERBS:
                for place in _order(turn, len(contenders)):
                    who = contenders[place]
                    if verb in who.verbs:
                        _note(table, turn, verb, who, who.measure(verb, containers[place]))
    return list(table.values())


def _table(
    group: str, verbs: Sequence[str], contenders: Sequence[Contender], reference: str
) -> dict[tuple[str, str], Row]:
    table = {
        (verb, who.label): Row(group, verb, who.label)
        for verb in verbs
        for who in contenders
        if verb in who.verbs
    }
    for (verb, label), row in table.items():
        if label != reference:
            row.against = table.get((verb, reference))
    return table


def _note(
    table: dict[tuple[str, str], Row], turn: int, verb: str, who: Contender, took: float
) -> None:
    if turn >= WARM_UP and (verb, who.label) in table:
        table[verb, who.label].samples.append(took)


def _order(turn: int, number: int) -> Iterator[int]:
    """Everybody is first as often as last: who follows whom may matter."""
    return ((turn + place) % number for place in range(number))


def _together(who: Plugin | Empty, verb: str, crowd: Sequence[Container]) -> float:
    return process.together([who.call(verb, container) for container in crowd])


def _fill(agent: Plugin, containers: Sequence[Container]) -> None:
    for start in range(0, len(containers), FILLING):
        _together(agent, "ADD", containers[start : start + FILLING])


def _marks(cycles: int) -> list[int]:
    """100, 1000 and so on, up to all."""
    marks = [100 * 10**power for power in range(7)]
    return [mark for mark in marks if mark < cycles] + [cycles]
