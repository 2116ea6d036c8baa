"""The kernels' door, their truth and their torch implementation: numbers by hand, properties, odd shapes, edges."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_toys import Case, no_worse_than_torch, random_case, run

from zerosearch import kernels
from zerosearch.errors import ConfigError
from zerosearch.kernels import SUMS, Head, PolicySettings, PolicyTokens
from zerosearch.kernels.chunked import FROZEN_SHARE, chunk_rows
from zerosearch.kernels.preparation import Formula, token_weights
from zerosearch.training import objective

BOTH = pytest.mark.parametrize("impl", ["reference", "torch"])
EVERYTHING = PolicySettings(
    clip=0.2, clip_high=0.3, kl_weight=0.1, entropy_weight=0.02, temperature=0.7, importance="token"
)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def toy(*probabilities: float, target: int = 0) -> tuple[torch.Tensor, Head, torch.Tensor]:
    """Return one state, a head and a target such that the softmax is the given one."""
    weight = vector(*probabilities).log().unsqueeze(1).requires_grad_()
    return vector(1.0).reshape(1, 1).requires_grad_(), Head(weight), torch.tensor([target])


def named(sums: torch.Tensor) -> dict[str, float]:
    return dict(zip(SUMS, sums.tolist(), strict=True))


# -- numbers by hand ------------------------------------------------------------------------------


@BOTH
def test_one_token_by_hand(impl: str) -> None:
    # p = 1/4, old 1/5: ratio 1.25 with A = +1 is cut to 1.2, and earns no gradient
    hidden, head, target = toy(0.25, 0.5, 0.25)
    tokens = PolicyTokens(target, vector(1.0), old_logp=vector(math.log(0.2)))
    found = kernels.policy_loss(hidden, head, tokens, PolicySettings(clip=0.2), impl=impl)
    assert found.loss.item() == pytest.approx(-1.2)
    assert found.logp.tolist() == pytest.approx([math.log(0.25)])
    assert found.entropy.tolist() == pytest.approx([1.5 * math.log(2.0)])
    assert named(found.sums) == pytest.approx(
        {"n_tokens": 1, "kl": 0, "n_clipped": 1, "gap": math.log(1.25), "entropy": 1.5 * math.log(2.0)}
    )
    (gradient,) = torch.autograd.grad(found.loss, head.weight)
    assert gradient.abs().max() == 0.0


@BOTH
def test_gradient_by_hand(impl: str) -> None:
    # ratio 1, A = 2: d loss / d logits = -2 (onehot - p) = (-1.5, 1, 0.5), times the state 1
    hidden, head, target = toy(0.25, 0.5, 0.25)
    found = kernels.policy_loss(hidden, head, PolicyTokens(target, vector(2.0)), impl=impl)
    assert found.loss.item() == pytest.approx(-2.0)
    by_weight, by_state = torch.autograd.grad(found.loss, (head.weight, hidden))
    assert by_weight.flatten().tolist() == pytest.approx([-1.5, 1.0, 0.5])
    logits = [math.log(0.25), math.log(0.5), math.log(0.25)]
    assert by_state.item() == pytest.approx(-1.5 * logits[0] + logits[1] + 0.5 * logits[2])


@BOTH
def test_k3_is_added_with_the_right_sign(impl: str) -> None:
    """The reference implementation subtracts it.  p = 1/4, reference 1/2: k3 = 2 - ln 2 - 1, slope 1 - 2 = -1."""
    hidden, head, target = toy(0.25, 0.5, 0.25)
    tokens = PolicyTokens(target, vector(0.0), ref_logp=vector(math.log(0.5)))
    found = kernels.policy_loss(hidden, head, tokens, PolicySettings(kl_weight=0.1), impl=impl)
    assert found.loss.item() == pytest.approx(0.1 * (1.0 - math.log(2.0))) and found.loss > 0
    assert named(found.sums)["kl"] == pytest.approx(1.0 - math.log(2.0))
    (gradient,) = torch.autograd.grad(found.loss, head.weight)
    assert gradient.flatten().tolist() == pytest.approx([-0.1 * 0.75, 0.1 * 0.5, 0.1 * 0.25])  # descent raises p


@BOTH
def test_entropy_bonus_by_hand(impl: str) -> None:
    # d H / d z_j = -p_j (log p_j + H); p = (1/4, 3/4)
    hidden, head, target = toy(0.25, 0.75)
    tokens = PolicyTokens(target, vector(0.0))
    found = kernels.policy_loss(hidden, head, tokens, PolicySettings(entropy_weight=0.5), impl=impl)
    entropy = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert found.loss.item() == pytest.approx(-0.5 * entropy)
    (gradient,) = torch.autograd.grad(found.loss, head.weight)
    by_hand = [0.5 * p * (math.log(p) + entropy) for p in (0.25, 0.75)]
    assert gradient.flatten().tolist() == pytest.approx(by_hand)


@BOTH
@pytest.mark.parametrize(("old", "cap", "factor"), [(0.25, 2.0, 1.25), (0.25, 1.1, 1.1), (None, 2.0, 1.25)])
def test_importance_correction_by_hand(impl: str, old: float | None, cap: float, factor: float) -> None:
    """p = old = 1/4, the sampler said 1/5: the gain counts 1.25 fold, or as much as the cap allows."""
    hidden, head, target = toy(0.25, 0.5, 0.25)
    given = None if old is None else vector(math.log(old))
    tokens = PolicyTokens(target, vector(1.0), old_logp=given, sampler_logp=vector(math.log(0.2)))
    settings = PolicySettings(importance="token", importance_cap=cap)
    found = kernels.policy_loss(hidden, head, tokens, settings, impl=impl)
    assert found.loss.item() == pytest.approx(-factor)
    (gradient,) = torch.autograd.grad(found.loss, head.weight)
    assert gradient[0].item() == pytest.approx(-factor * 0.75)


def test_importance_per_sequence_multiplies_the_tokens_of_a_trajectory_and_drops_those_above_the_cap() -> None:
    hidden = torch.zeros(4, 2, dtype=torch.float64)
    head = Head(torch.zeros(4, 2, dtype=torch.float64))
    quarter = math.log(0.25)
    tokens = PolicyTokens(
        torch.zeros(4, dtype=torch.int64), vector(1.0, 1.0, 1.0), weights=torch.ones(4),
        trajectory=torch.tensor([0, 0, 1, 2]), old_logp=vector(quarter, quarter, quarter, quarter),
        sampler_logp=vector(quarter - 0.1, quarter - 0.2, quarter + 0.4, quarter - 0.7),  # e^0.7 is above 2
    )
    found = kernels.policy_loss(hidden, head, tokens, PolicySettings(importance="sequence"), impl="torch")
    assert found.loss.item() == pytest.approx(-2 * math.exp(0.3) - math.exp(-0.4))


@BOTH
def test_cross_entropy_by_hand(impl: str) -> None:
    hidden, head, target = toy(0.25, 0.5, 0.25)
    loss, logp, entropy = kernels.masked_cross_entropy(hidden, head, target, impl=impl)
    assert loss.item() == pytest.approx(math.log(4.0)) and logp.item() == pytest.approx(-math.log(4.0))
    assert entropy.item() == pytest.approx(1.5 * math.log(2.0)) and not logp.requires_grad
    (gradient,) = torch.autograd.grad(loss, head.weight)
    assert gradient.flatten().tolist() == pytest.approx([-0.75, 0.5, 0.25])
    weighed, _, _ = kernels.masked_cross_entropy(hidden, head, target, weights=vector(4.0), impl=impl)
    assert weighed.item() == pytest.approx(4 * math.log(4.0))


def test_weights_by_hand() -> None:
    mask, trajectory = torch.tensor([1, 1, 0, 1, 0], dtype=torch.bool), torch.tensor([0, 0, 0, 1, 2])
    tokens = PolicyTokens(torch.zeros(5, dtype=torch.int64), torch.zeros(3), mask=mask, trajectory=trajectory)
    assert token_weights(tokens, PolicySettings()).tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3, 0])
    per_sequence = token_weights(tokens, PolicySettings(normalisation="sequence"))
    assert per_sequence.tolist() == pytest.approx([0.25, 0.25, 0, 0.5, 0])  # the third trajectory has no token


def test_weights_are_those_of_the_trainers() -> None:
    from zerosearch.training.batching import token_weights as of_counts

    counts = [3, 1, 4]
    trajectory = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    tokens = PolicyTokens(torch.zeros(8, dtype=torch.int64), torch.zeros(3), trajectory=trajectory)
    for kind in ("token", "sequence"):
        found = token_weights(tokens, PolicySettings(normalisation=kind))
        assert found.tolist() == pytest.approx(of_counts(counts, kind)[trajectory.numpy()].tolist())


def test_the_loss_is_the_one_of_the_trainers() -> None:
    """``objective.policy_loss`` on the same log-probabilities: the loss, and each number that is logged."""
    case = random_case(40, 8, 33, share=None).to(torch.float64)
    tokens = replace(case.tokens, sampler_logp=None, weights=torch.full((40,), 1 / 40, dtype=torch.float64))
    settings = PolicySettings(clip=0.2, kl_weight=0.1)
    found = kernels.policy_loss(case.hidden, case.head, tokens, settings, impl="torch")
    logp, _ = kernels.reference.token_logps(case.hidden, case.head, tokens.targets)
    wanted, terms = objective.policy_loss(
        logp, tokens.old_logp, tokens.advantages[tokens.trajectory], tokens.weights, clip=0.2,
        ref_logp=tokens.ref_logp, kl_weight=0.1,
    )
    assert found.loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    sums = named(found.sums)
    assert 0 < terms.n_clipped == sums["n_clipped"] and sums["n_tokens"] == terms.n_tokens
    assert (sums["kl"], sums["gap"]) == pytest.approx((terms.kl_sum, terms.gap_sum))


# -- the torch implementation against the truth ---------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("n", "width", "vocabulary"), [(1, 1, 1), (1, 16, 255), (33, 8, 507), (20, 123, 64)])
@pytest.mark.parametrize("extra", [{}, {"bias": True}, {"softcap": 5.0, "scale": 1.7}])
def test_no_worse_than_torch_at_any_type(n: int, width: int, vocabulary: int, dtype: torch.dtype, extra: dict) -> None:
    no_worse_than_torch(random_case(n, width, vocabulary, share=0.9, **extra), EVERYTHING, "torch", dtype)


@settings(max_examples=60)
@given(
    n=st.integers(1, 40), vocabulary=st.integers(1, 70), seed=st.integers(0, 10_000), bias=st.booleans(),
    softcap=st.sampled_from([None, 3.0]), share=st.sampled_from([None, 0.0, 0.35, 1.0]), rows=st.integers(1, 50),
    temperature=st.floats(0.3, 2.0), kind=st.sampled_from(["token", "sequence"]),
    importance=st.sampled_from(["none", "token", "sequence"]), bonus=st.sampled_from([0.0, 0.1]),
)
def test_equal_to_the_truth_however_it_is_cut(
    n, vocabulary, seed, bias, softcap, share, rows, temperature, kind, importance, bonus  # noqa: ANN001
) -> None:
    case = random_case(n, 5, vocabulary, share=share, bias=bias, softcap=softcap, seed=seed).to(torch.float64)
    wanted = PolicySettings(
        kl_weight=0.1, entropy_weight=bonus, temperature=temperature, normalisation=kind, importance=importance
    )
    truth, truths = run(case, wanted, "reference")
    found, gradients = run(case, wanted, "torch", budget_bytes=rows * vocabulary * 8)
    for a, b in zip([found.loss, found.logp, found.entropy, found.sums, *gradients],
                    [truth.loss, truth.logp, truth.entropy, truth.sums, *truths], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    if case.tokens.mask is not None:
        assert (gradients[0][~case.tokens.mask] == 0.0).all()


def test_gradients_are_those_of_finite_differences() -> None:
    case = random_case(6, 3, 7, bias=True, softcap=4.0, spread=0.05).to(torch.float64)
    settings_ = replace(EVERYTHING, importance="none")
    _, gradients = run(case, settings_, "torch")
    for numbers, gradient in zip((case.hidden, case.head.weight, case.head.bias), gradients, strict=True):
        flat = numbers.detach().flatten()  # of the same storage: a change reaches the case
        for i in range(0, len(flat), 3):
            ends = []
            for step in (1e-6, -2e-6):
                flat[i] += step
                with torch.no_grad():
                    ends.append(kernels.policy_loss(case.hidden, case.head, case.tokens, settings_, impl="torch").loss)
            flat[i] += 1e-6
            assert gradient.flatten()[i].item() == pytest.approx((ends[0] - ends[1]).item() / 2e-6, abs=1e-7)


@BOTH
def test_masked_rows_may_hold_anything(impl: str) -> None:
    """Targets of -100, infinite states, NaN log-probabilities of masked rows reach nothing; gradients are exact 0."""
    case = random_case(30, 4, 19, spread=0.1).to(torch.float64)
    clean, _ = run(case, EVERYTHING, impl)
    off = ~case.tokens.mask
    dirty = {name: getattr(case.tokens, name).clone() for name in ("targets", "old_logp", "sampler_logp", "ref_logp")}
    dirty["targets"][off] = -100
    for name in ("old_logp", "sampler_logp", "ref_logp"):
        dirty[name][off] = math.nan
    hidden = case.hidden.detach().clone()
    hidden[off] = math.inf
    found, gradients = run(
        Case(hidden.requires_grad_(), case.head, replace(case.tokens, **dirty)), EVERYTHING, impl
    )
    assert found.loss.item() == clean.loss.item() and (gradients[0][off] == 0.0).all()
    assert all(g.isfinite().all() for g in gradients) and (found.logp[off] == 0.0).all()


@BOTH
def test_all_masked_is_a_differentiable_zero(impl: str) -> None:
    case = random_case(9, 4, 11, share=0.0).to(torch.float32)
    found, gradients = run(case, EVERYTHING, impl)
    assert found.loss.item() == 0.0 and named(found.sums)["n_tokens"] == 0.0
    assert all((g == 0.0).all() for g in gradients)


@BOTH
def test_no_rows_at_all(impl: str) -> None:
    found, gradients = run(random_case(0, 4, 11, share=None).to(torch.float32), PolicySettings(), impl)
    assert found.loss.item() == 0.0 and found.logp.shape == (0,) and (gradients[1] == 0.0).all()


def test_extreme_logits_stay_finite() -> None:
    case = random_case(12, 4, 50, size=3e3, share=None).to(torch.float32)
    found, gradients = run(case, PolicySettings(kl_weight=0.0, entropy_weight=0.1), "torch")
    truth, truths = run(case.to(torch.float64), PolicySettings(kl_weight=0.0, entropy_weight=0.1), "reference")
    assert found.loss.item() == pytest.approx(truth.loss.item(), rel=1e-3)
    for a, b in zip(gradients, truths, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-2, atol=1e-2 * b.abs().max().item())


def test_tied_embeddings_get_both_gradients() -> None:
    ids = torch.tensor([1, 4, 2, 2])
    found = []
    for impl in ("reference", "torch"):
        torch.manual_seed(0)
        table = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
        tokens = PolicyTokens(ids.roll(-1), torch.ones(4, dtype=torch.float64))
        kernels.policy_loss(table[ids].tanh(), Head(table), tokens, impl=impl).loss.backward()
        found.append(table.grad)
    torch.testing.assert_close(found[1], found[0])


def test_a_frozen_head_costs_no_weight_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    from zerosearch.kernels import chunked

    case = random_case(20, 4, 11, bias=True).to(torch.float32)
    _, (wanted, *_) = run(case, PolicySettings(), "torch")
    made = []
    monkeypatch.setattr(chunked, "_add_product", lambda *arguments: made.append(arguments))
    head = Head(case.head.weight.detach(), case.head.bias.detach())
    loss = kernels.policy_loss(case.hidden, head, case.tokens, impl="torch").loss
    (found,) = torch.autograd.grad(loss, case.hidden)
    torch.testing.assert_close(found, wanted)
    assert made == []


def test_no_gradient_is_made_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from zerosearch.kernels import torch_tiles

    asked = []
    original = torch_tiles.tile
    monkeypatch.setattr(torch_tiles, "tile", lambda *a: asked.append(a[-1]) or original(*a))
    case = random_case(8, 4, 11).to(torch.float32)
    with torch.no_grad():
        assert not kernels.policy_loss(case.hidden, case.head, case.tokens, impl="torch").loss.requires_grad
    logp, entropy = kernels.token_logps(case.hidden, case.head, case.tokens.targets, impl="torch")
    assert asked == [False, False] and not logp.requires_grad
    wanted = kernels.reference.token_logps(case.hidden.detach(), case.head, case.tokens.targets)
    torch.testing.assert_close((logp, entropy), (wanted[0].detach(), wanted[1].detach()))


def test_the_gradient_scales_with_that_of_the_loss_and_is_made_once() -> None:
    case = random_case(8, 4, 11).to(torch.float64)
    _, single = run(case, PolicySettings(), "torch")
    loss = kernels.policy_loss(case.hidden, case.head, case.tokens, impl="torch").loss
    loss_again = kernels.policy_loss(case.hidden, case.head, case.tokens, impl="torch").loss
    three = torch.autograd.grad(3.0 * loss, (case.hidden, case.head.weight))
    torch.testing.assert_close(list(three), [3.0 * g for g in single])
    loss_again.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="found a second"):
        loss_again.backward()


def test_autocast_multiplies_in_its_type_and_keeps_float32_gradients() -> None:
    case = random_case(24, 16, 40, share=None).to(torch.float32)
    _, wanted = run(case, PolicySettings(), "torch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = kernels.policy_loss(case.hidden, case.head, case.tokens, impl="torch").loss
    found = torch.autograd.grad(loss, (case.hidden, case.head.weight))
    assert [g.dtype for g in found] == [torch.float32] * 2
    for a, b in zip(found, wanted, strict=True):
        assert 0 < (a - b).abs().max() < 0.02 * b.abs().max()  # bfloat16 was used, and only there


def test_inside_torch_compile_without_a_break() -> None:
    case = random_case(16, 8, 30).to(torch.float32)

    def loss(hidden, weight):  # noqa: ANN001, ANN202
        return kernels.policy_loss(
            hidden.sin(), Head(weight), case.tokens, EVERYTHING, impl="torch"
        ).loss * 2.0

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    inputs = (case.hidden, case.head.weight)
    torch.testing.assert_close(
        torch.autograd.grad(compiled(*inputs), inputs), torch.autograd.grad(loss(*inputs), inputs)
    )


# -- chunks ---------------------------------------------------------------------------------------


@given(
    n=st.integers(0, 70_000), vocabulary=st.integers(1, 200_000), budget=st.integers(1, 1 << 31),
    frozen=st.booleans(), on_cpu=st.booleans(),
)
def test_chunks_keep_to_the_budget(n: int, vocabulary: int, budget: int, frozen: bool, on_cpu: bool) -> None:
    rows = chunk_rows(n, vocabulary, 2, budget, frozen=frozen, on_cpu=on_cpu)
    allowed = budget // FROZEN_SHARE if frozen else budget
    assert rows >= 1 and (rows == 1 or rows * vocabulary * 2 <= allowed)


def test_chunks_of_the_stated_shape() -> None:
    # 5,734 tokens of a vocabulary of 151,936 in bfloat16: 1 GiB holds 3,533 rows, so two even chunks
    assert chunk_rows(5734, 151_936, 2, 1 << 30, frozen=False, on_cpu=False) == 2880
    assert chunk_rows(5734, 151_936, 2, 1 << 30, frozen=True, on_cpu=False) == 832


# -- the door -------------------------------------------------------------------------------------


def test_auto_is_torch_without_a_gpu() -> None:
    assert kernels.chosen("auto", torch.device("cpu")) == "torch"
    with pytest.raises(ConfigError, match="did you mean 'torch'"):
        kernels.chosen("torhc", torch.device("cpu"))


def test_triton_without_a_gpu_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match="expected a GPU, found cpu; use impl='torch', or set TRITON_INTERPRET=1"):
        kernels.chosen("triton", torch.device("cpu"))


def test_a_formula_survives_its_journey_through_the_operator() -> None:
    for formula in (Formula(), Formula(0.7, 1.3, 30.0, 0.8, 1.3, 0.1, 0.02, 3.0, True)):
        assert Formula.from_numbers(formula.numbers()) == formula


@pytest.mark.parametrize(("change", "settings_", "words"), [
    ({"targets": torch.zeros(3, dtype=torch.int64)}, {}, r"8 hidden states, found targets \(3,\)"),
    ({"trajectory": None}, {}, r"found advantages \(4,\)"),
    ({"trajectory": None, "advantages": torch.zeros(8)}, {"normalisation": "sequence"}, "expected PolicyTokens.traj"),
    ({"sampler_logp": None}, {"importance": "token"}, "expected sampler_logp, found none"),
    ({"old_logp": None}, {"importance": "sequence"}, "expected old_logp, found none"),
    ({}, {"temperature": 0.0}, "temperature above 0, found 0"),
])
def test_what_does_not_fit_is_refused(change: dict, settings_: dict, words: str) -> None:
    case = random_case(8, 4, 11).to(torch.float32)
    with pytest.raises(ValueError, match=words):
        kernels.policy_loss(case.hidden, case.head, replace(case.tokens, **change), PolicySettings(**settings_))


@pytest.mark.parametrize(("field", "found"), [("normalisation", "tokens"), ("importance", "tokens")])
def test_unknown_choices_name_the_nearest(field: str, found: str) -> None:
    case = random_case(8, 4, 11).to(torch.float32)
    with pytest.raises(ConfigError, match="did you mean 'token'"):
        kernels.policy_loss(case.hidden, case.head, case.tokens, PolicySettings(**{field: found}))


def test_heads_that_do_not_fit_are_refused() -> None:
    case = random_case(8, 4, 11).to(torch.float32)
    for head in (Head(torch.zeros(11, 5)), Head(torch.zeros(11, 4), torch.zeros(4))):
        with pytest.raises(ValueError, match=r"\(8, 4\) and \(11, 5\)|bias \(4,\) for 11"):
            kernels.policy_loss(case.hidden, head, case.tokens)
