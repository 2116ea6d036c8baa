"""Which machine can hold a simulator's weights in which numbers, what the plan makes of them, and how vLLM is told.

What torchao makes of a model is tested where it is installed: tests_vllm/test_quantised.py.
"""

from __future__ import annotations

import pytest
from test_plan_memory import phases_of
from training_toys import toy_model

from zerosearch import checks, layouts, profiles, simulator_weights
from zerosearch.engines import quantised
from zerosearch.errors import ConfigError
from zerosearch.layouts import Layout
from zerosearch.planning import memory
from zerosearch.planning.shapes import Shape, shape_of
from zerosearch.simulator_weights import Place, possible, problem, settled

CPU, SERVED, A100, H100 = Place(None, False), Place(None, False, True), Place((8, 0), True), Place((9, 0), True)


@pytest.mark.parametrize(("place", "can"), [
    (CPU, ("int8", "w4a16")), (SERVED, ("int8",)), (A100, ("w4a16", "int8")), (Place((8, 6), False), ("int8",)),
    (H100, ("fp8", "w4a16", "int8")), (Place((8, 9), True), ("fp8", "w4a16", "int8")), (Place((7, 5), True), ()),
])
def test_auto_is_the_best_that_a_card_can(
    place: Place, can: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator_weights, "installed_version", lambda name: "0.18.0")
    assert possible(place) == can and settled("as-is", place) == "as-is"
    assert settled("auto", place) == (can[0] if can else "as-is")
    for kind in ("int8", "w4a16", "fp8"):
        if kind in can:
            assert settled(kind, place) == kind
            continue
        with pytest.raises(ConfigError) as refused:
            settled(kind, place)
        assert f"expected one of {', '.join(('as-is', *can))} here" in str(refused.value) and f"found {kind}" in str(refused.value)


def test_a_check_before_the_run_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator_weights, "installed_version", lambda name: None)
    monkeypatch.setattr(checks, "card_capability", lambda: None)

    def found(weights: str, *arms: str, **more: str) -> list[str]:
        overrides = {"layout.simulator_weights": weights} | {f"03.{name}": value for name, value in more.items()}
        settings = profiles.load("smoke", overrides, arms=arms)
        return checks.simulator_weights_problems(settings, ["03"])

    assert found("as-is", "zerosearch") == found("int8", "search-r1") == []  # no torchao is asked for
    assert "pip install -c constraints.txt -e '.[quant]'" in found("int8", "zerosearch")[0]
    assert "expected one of as-is, int8, w4a16 here (a CPU" in found("fp8", "zerosearch")[0]
    assert "its own server decides" in found("int8", "zerosearch", simulator_url="http://127.0.0.1:9/v1", simulator_name="m")[0]
    assert problem(Layout(), CPU, elsewhere=True) == ""


def test_weights_decide_stage_03_alone() -> None:
    short = Layout(simulator_weights="int8")
    assert layouts.fingerprint(short, "03") == {"layout": {"simulator_weights": "int8"}}
    assert layouts.fingerprint(short, "02") == layouts.deciding(short, "01") == layouts.deciding(short, "04") == {}


def test_the_plan_counts_short_weights() -> None:
    """Width 64, MLP 128, two blocks: 2 x 36,864 weights in linear layers, 6,720 elsewhere (100 x 64 + 5 norms of 64)."""
    shape = Shape(64, 128, 2, 4, 2, 16, 100, tied=True)
    assert memory.simulator_weights(shape, Layout()) == 4 * 80_448
    assert memory.simulator_weights(shape, Layout(simulator_weights="int8")) == 73_728 + 4 * 6_720
    assert memory.simulator_weights(shape, Layout(precision="bf16", simulator_weights="w4a16")) == 39_168 + 2 * 6_720
    plain, short = (
        phases_of("single_gpu", layout__simulator_weights=kind, **{"03__simulator_replicas": "0"})
        for kind in ("as-is", "fp8")
    )
    base = shape_of("Qwen/Qwen2.5-3B-Instruct")
    assert base is not None and plain["rollout"].part("simulator") == 2 * 3_085_938_688
    assert short["rollout"].part("simulator") == 2_774_532_096 + 2 * (3_085_938_688 - 2_774_532_096)


def test_vllm_is_told_in_its_own_words() -> None:
    wide = toy_model(intermediate_size=64)
    assert quantised.vllm_options(wide, "as-is") == []
    assert quantised.vllm_options(wide, "fp8") == ["--quantization", "fp8"]
    with pytest.raises(ConfigError, match="outputs in multiples of 16"):
        quantised.vllm_options(toy_model(hidden_size=36, intermediate_size=50), "fp8")
