"""The laboratory of layers: how strategies of putting store paths into layers would have done over a workload."""

from tests.bench.layering.lines import MEASURES

__all__ = ["MEASURES"]
