"""The numbers of several processes as one text: each sample has the label ``device``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families


def joined_metrics(texts: Mapping[str, str], up: Mapping[str, bool]) -> bytes:
    """Return the samples of ``texts`` (by device) together, and which devices are ``up``."""
    registry = CollectorRegistry()
    registry.register(_Joined(texts, up))
    return generate_latest(registry)


class _Joined:
    def __init__(self, texts: Mapping[str, str], up: Mapping[str, bool]) -> None:
        self._texts, self._up = texts, up

    def collect(self) -> Iterator[Metric]:
        state = GaugeMetricFamily("cbtrain_device_up", "whether the device's process serves", labels=["device"])
        for device, is_up in self._up.items():
            state.add_metric([device], float(is_up))
        yield state
        families: dict[str, Metric] = {}
        for device, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                joined = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    joined.samples.append(sample._replace(labels={**sample.labels, "device": device}))
        yield from families.values()
