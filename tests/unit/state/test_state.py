"""The keys of layer records."""

import pytest

from proxy.core.model import LayerPlan
from proxy.state import layer_key

PLAN = LayerPlan(("/nix/store/a", "/nix/store/b"))


@pytest.mark.parametrize(
    ("plan", "codec"),
    [
        pytest.param(LayerPlan(("/nix/store/a",)), "tar1", id="a path less"),
        pytest.param(LayerPlan(("/nix/store/a", "/nix/store/c")), "tar1", id="another path"),
        pytest.param(LayerPlan(("/nix/store/a /nix/store/b",)), "tar1", id="paths run together"),
        pytest.param(PLAN, "tar2", id="another codec"),
    ],
)
def test_whatever_the_bytes_depend_on_changes_the_key(plan: LayerPlan, codec: str) -> None:
    assert layer_key(plan, codec) != layer_key(PLAN, "tar1")
