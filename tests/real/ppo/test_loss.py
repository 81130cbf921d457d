"""The policy losses against a literal, slow reading of their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from areal_real.ppo.loss import OBJECTIVES, Objective, join_stats, policy_loss, stats_per_token

Token = tuple[float, float, float, float, bool]
logprob = st.floats(-6.0, 0.0, width=32)
token = st.tuples(logprob, logprob, logprob, st.floats(-3.0, 3.0, width=32), st.booleans())


def tensors(tokens: list[Token]) -> tuple[torch.Tensor, ...]:
    rows = torch.tensor([row[:4] for row in tokens], dtype=torch.float32).reshape(-1, 4)
    mask = torch.tensor([row[4] for row in tokens], dtype=torch.bool)
    return (*rows.unbind(1), mask)


def literal(
    tokens: list[Token], *, objective: str, clip: float, cap: float | None
) -> tuple[float, dict[str, float]]:
    total = 0.0
    stats = dict.fromkeys(
        [
            "tokens",
            "clipped",
            "dropped",
            "behaviour_weight",
            "behaviour_weight_max",
            "proximal_kl",
            "behaviour_kl",
        ],
        0.0,
    )
    for theta, prox, behav, adv, real in tokens:
        if not real:
            continue
        w = math.exp(prox) / math.exp(behav)
        u = math.exp(theta) / (math.exp(prox) if objective == "decoupled" else math.exp(behav))
        inside = min(max(u, 1 - clip), 1 + clip)
        value = min(u * adv, inside * adv)
        if objective == "decoupled":
            kept = cap is None or w <= cap
            stats["dropped"] += not kept
            value *= w if kept else 0.0
        total -= value
        stats["tokens"] += 1
        stats["clipped"] += inside * adv < u * adv
        stats["behaviour_weight"] += w
        stats["behaviour_weight_max"] = max(stats["behaviour_weight_max"], w)
        for name, log_ratio in (("proximal_kl", theta - prox), ("behaviour_kl", theta - behav)):
            stats[name] += math.exp(log_ratio) - 1 - log_ratio
    return total, stats


@settings(deadline=None)
@given(
    st.lists(token, max_size=12),
    st.sampled_from(["decoupled", "naive"]),
    st.sampled_from([0.1, 0.2, 0.4]),
    st.sampled_from([None, 1.0, 2.0, 5.0]),
)
def test_the_loss_is_its_formula(
    tokens: list[Token], objective: Objective, clip: float, cap: float | None
) -> None:
    # A weight at the cap, or a ratio at the clip, to within rounding may fall on either side.
    for theta, prox, behav, _, _ in tokens:
        for log_ratio in (theta - prox, theta - behav, prox - behav):
            for edge in (1 - clip, 1 + clip, cap or 1.0):
                if abs(math.exp(log_ratio) - edge) < 1e-4 and log_ratio != 0:
                    return
    loss, stats = policy_loss(
        *tensors(tokens), objective=objective, clip=clip, behaviour_weight_cap=cap
    )
    wanted, wanted_stats = literal(tokens, objective=objective, clip=clip, cap=cap)
    assert float(loss) == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    assert {name: float(value) for name, value in stats.items()} == pytest.approx(
        wanted_stats, rel=1e-4, abs=1e-4
    )


def one(theta: float, prox: float, behav: float, adv: float, **options: object) -> float:
    """Gradient of the loss of one token by its log-probability."""
    logprobs = torch.tensor([theta], requires_grad=True)
    chosen = {"objective": "decoupled", "clip": 0.2, "behaviour_weight_cap": None} | options
    loss, _ = policy_loss(
        logprobs,
        torch.tensor([prox]),
        torch.tensor([behav]),
        torch.tensor([adv]),
        torch.tensor([True]),
        **chosen,  # type: ignore[arg-type]
    )
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return float(gradient)


def test_the_gradient_is_ratio_times_weight_times_advantage() -> None:
    assert one(-1.0, -1.0, -1.0, 2.0) == pytest.approx(-2.0)
    # d(w u A)/d ln theta = w u A; here w = e^0.5 and u = e^0.1, inside the clip.
    assert one(-0.9, -1.0, -1.5, 2.0) == pytest.approx(-2 * math.exp(0.6))
    assert one(-0.9, -1.0, -1.0, 2.0, objective="naive") == pytest.approx(-2 * math.exp(0.1))


@pytest.mark.parametrize(
    ("theta", "adv", "flat"),
    [(-0.5, 1.0, True), (-1.5, -1.0, True), (-0.5, -1.0, False), (-1.5, 1.0, False)],
)
def test_the_clip_stops_only_what_goes_on_outwards(theta: float, adv: float, flat: bool) -> None:
    assert (one(theta, -1.0, -1.0, adv) == 0) == flat
    assert (one(theta, -9.0, -1.0, adv, objective="naive") == 0) == flat


def test_the_trust_region_lies_around_the_proximal_policy_or_the_behaviour_policy() -> None:
    # The proximal policy moved far from the behaviour policy: naive PPO cannot learn here.
    assert one(-1.0, -1.0, -2.0, 1.0) == pytest.approx(-math.e)
    assert one(-1.0, -1.0, -2.0, 1.0, objective="naive") == 0


def test_a_weight_above_the_cap_drops_the_token_and_no_gradient_flows_through_weights() -> None:
    assert one(-1.0, -1.0, -4.0, 1.0, behaviour_weight_cap=5.0) == 0
    assert one(-1.0, -1.0, -4.0, 1.0) == pytest.approx(-math.exp(3.0), rel=1e-5)
    prox = torch.tensor([-1.0], requires_grad=True)
    behav = torch.tensor([-1.1], requires_grad=True)
    theta = torch.tensor([-1.0], requires_grad=True)
    for objective in OBJECTIVES:
        loss, _ = policy_loss(
            theta,
            prox,
            behav,
            torch.tensor([1.0]),
            torch.tensor([True]),
            objective=objective,
            clip=0.2,
            behaviour_weight_cap=5.0,
        )
        gradients = torch.autograd.grad(loss, [theta, prox, behav], allow_unused=True)
        assert [gradient is None for gradient in gradients] == [False, True, True]


@settings(deadline=None)
@given(st.lists(token, min_size=1, max_size=12), st.sampled_from([None, 1.0, 5.0]))
def test_both_losses_are_one_when_the_proximal_is_the_behaviour_policy(
    tokens: list[Token], cap: float | None
) -> None:
    theta, prox, _, adv, mask = tensors(tokens)
    found = []
    for objective in OBJECTIVES:
        leaf = theta.clone().requires_grad_()
        loss, stats = policy_loss(
            leaf,
            prox,
            prox,
            adv,
            mask,
            objective=objective,
            clip=0.2,
            behaviour_weight_cap=cap,
        )
        (gradient,) = torch.autograd.grad(loss, leaf)
        # Nothing stale: every weight is exactly 1 and none is dropped, even at a cap of 1.
        assert float(stats["behaviour_weight"]) == float(mask.sum())
        assert float(stats["behaviour_weight_max"]) == float(mask.any())
        assert float(stats["dropped"]) == 0
        found.append((float(loss.detach()), gradient.tolist()))
    assert found[0] == found[1]


@settings(deadline=None)
@given(st.lists(token, min_size=1, max_size=12), st.data())
def test_a_batch_cut_in_two_adds_up(tokens: list[Token], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(tokens)))

    def loss_of(part: list[Token]) -> tuple[float, dict[str, float]]:
        loss, stats = policy_loss(
            *tensors(part), objective="decoupled", clip=0.2, behaviour_weight_cap=5.0
        )
        return float(loss), {name: float(value) for name, value in stats.items()}

    whole, parts = loss_of(tokens), [loss_of(tokens[:cut]), loss_of(tokens[cut:])]
    assert whole[0] == pytest.approx(sum(part[0] for part in parts), rel=1e-4, abs=1e-4)
    assert whole[1] == pytest.approx(join_stats(part[1] for part in parts), rel=1e-4, abs=1e-4)


def test_what_stands_outside_the_mask_cannot_hurt() -> None:
    mask = torch.tensor([True, False])
    bad = torch.tensor([-1.0, float("nan")])
    worse = torch.tensor([-1.0, float("-inf")])
    leaf = worse.clone().requires_grad_()
    loss, stats = policy_loss(
        leaf,
        bad,
        worse,
        torch.tensor([1.0, float("inf")]),
        mask,
        objective="decoupled",
        clip=0.2,
        behaviour_weight_cap=5.0,
    )
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert float(loss.detach()) == -1
    assert gradient.tolist() == [-1, 0]
    assert all(math.isfinite(float(value)) for value in stats.values())


def test_naive_needs_no_proximal_policy_and_decoupled_does() -> None:
    row = torch.tensor([-1.0])
    mask = torch.tensor([True])
    loss, stats = policy_loss(
        row, None, row, row, mask, objective="naive", clip=0.2, behaviour_weight_cap=None
    )
    assert float(loss) == 1
    assert float(stats["proximal_kl"]) == 0
    with pytest.raises(ValueError, match="proximal_logprobs: the decoupled objective needs them"):
        policy_loss(
            row, None, row, row, mask, objective="decoupled", clip=0.2, behaviour_weight_cap=None
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "ppo"}, "objective: 'ppo' is not one of decoupled, naive"),
        ({"clip": 0.0}, r"clip: 0\.0 is not above 0"),
        ({"clip": float("nan")}, "clip: nan is not above 0"),
        ({"behaviour_weight_cap": 0.5}, r"behaviour_weight_cap: 0\.5 is below 1"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one(-1.0, -1.0, -1.0, 1.0, **options)


def test_bad_shapes_are_named() -> None:
    row, mask = torch.zeros(2), torch.ones(2, dtype=torch.bool)
    options = {"objective": "naive", "clip": 0.2, "behaviour_weight_cap": None}
    with pytest.raises(ValueError, match=r"advantages: shape \(1,\), logprobs have \(2,\)"):
        policy_loss(row, row, row, torch.zeros(1), mask, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mask: torch.float32 is not torch.bool"):
        policy_loss(row, row, row, row, row, **options)  # type: ignore[arg-type]


def test_statistics_join_and_become_means() -> None:
    joined = join_stats(
        [
            {"tokens": 2.0, "clipped": 1.0, "behaviour_weight_max": 3.0},
            {"tokens": 6.0, "clipped": 1.0, "behaviour_weight_max": 2.0},
        ]
    )
    assert joined == {"tokens": 8.0, "clipped": 2.0, "behaviour_weight_max": 3.0}
    assert stats_per_token(joined) == {"tokens": 8.0, "clipped": 0.25, "behaviour_weight_max": 3.0}
    assert join_stats([]) == {}
