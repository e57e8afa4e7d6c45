"""Figures of the DRA driver, as Prometheus collects them: docs/observability.md lists them."""

from collections.abc import Iterable
from itertools import product

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cni_netkit.claims import Claims
from cni_netkit.dra.keeper import Keeper
from cni_netkit.dra.kubelet import Driver


class Figures(Collector):
    """What driver and keeper have counted, and what is on record when somebody asks."""

    def __init__(self, driver: Driver, keeper: Keeper) -> None:
        self._driver, self._keeper = driver, keeper
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format (version 0.0.4)."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: whoever registers it must not have to read all rows for it."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """As it is now."""
        calls = CounterMetricFamily(
            "cni_netkit_claims_answered",
            "Claims that the kubelet asked to be prepared or unprepared.",
            labels=("call", "result"),
        )
        for each in product(("prepare", "unprepare"), ("ok", "refused")):
            calls.add_metric(each, self._driver.counted[each])
        mended = CounterMetricFamily(
            "cni_netkit_claims_mended",
            "Rows that were removed, since their claim was gone; and rows of claims that had none.",
            labels=("found",),
        )
        for found in ("without claim", "without row"):
            mended.add_metric((found,), self._keeper.counted[found])
        written = CounterMetricFamily(
            "cni_netkit_dra_written", "What the API server was told.", labels=("what",)
        )
        for what in ("slices", "statuses"):
            written.add_metric((what,), self._keeper.counted[what])
        yield from (calls, mended, written)
        yield GaugeMetricFamily(
            "cni_netkit_claims", "Claims that are prepared.", value=len(Claims().uids())
        )
        yield GaugeMetricFamily(
            "cni_netkit_dra_registered",
            "1 where the kubelet has registered the driver.",
            value=self._keeper.is_registered,
        )
        published = self._keeper.published
        yield GaugeMetricFamily(
            "cni_netkit_dra_published",
            "1 where the API server is known to have what the node has.",
            value=published is not None,
        )
