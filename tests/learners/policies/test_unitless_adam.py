"""One step of UnitlessAdam: against plain loops, in closed forms, and without a bit of the loss's scale."""

import math

import pytest
import torch

from metaopt.learners.policies.unitless_adam import (
    EPS_MODES,
    MINIMUM_TRUST,
    Hyperparameters,
    unitless_start,
    unitless_step,
)

START = {
    "lr": 1e-3,
    "weight_decay": 1e-2,
    "epsilon": 1e-6,
    "one_minus_beta2": 1e-2,
    "one_minus_beta1": 0.1,
    "clip_ratio": 0.8,
    "clip_decay": 1e-2,
    "trust_decay": 0.05,
}
# Sorted names are in another order than these, and all ranks are there.
SHAPES = {"w": (3, 4), "b": (3,), "scale": (), "cube": (2, 2, 2), "a": (2, 1)}


def hypers(**changed):
    return Hyperparameters(**{name: torch.tensor(value, dtype=torch.float64) for name, value in (START | changed).items()})


def draw(seed, dtype=torch.float64, shapes=None, size=1.0):
    rng = torch.Generator().manual_seed(seed)
    return {name: (size * torch.randn(shape, generator=rng, dtype=torch.float64)).to(dtype) for name, shape in (shapes or SHAPES).items()}


def follow(params, gradients, h=None, eps_mode="relative"):
    """Take a step for each of the gradients; `h` may be a list too. Return parameters, state and all parts."""
    state, trail = unitless_start(params), []
    for t, grads in enumerate(gradients):
        now = h[t] if isinstance(h, list) else h or hypers()
        params, state, parts = unitless_step(params, grads, state, now, eps_mode)
        trail.append(parts)
    return params, state, trail


class Oracle:
    """The same optimizer on lists of floats, with moments and products of betas as in the papers."""

    def __init__(self, params):
        self.p = {name: param.double().flatten().tolist() for name, param in params.items()}
        self.trusted = {name: param.dim() > 1 for name, param in params.items()}
        self.m, self.s = ({name: [0.0] * len(p) for name, p in self.p.items()} for _ in range(2))
        self.norm_max, self.rms, self.norm_u = 0.0, dict.fromkeys(self.p, 0.0), dict.fromkeys(self.p, 0.0)
        self.left1 = self.left2 = self.left_trust = 1.0

    def step(self, grads, h, eps_mode):
        raw = {name: grad.double().flatten().tolist() for name, grad in grads.items()}
        beta1, beta2, beta_u = (1.0 - h[key] for key in ("one_minus_beta1", "one_minus_beta2", "trust_decay"))
        norm = math.sqrt(sum(x * x for g in raw.values() for x in g))
        self.norm_max = max(norm, (1.0 - h["clip_decay"]) * self.norm_max)
        clip = min(1.0, h["clip_ratio"] * self.norm_max / norm) if norm else 1.0
        self.left1, self.left2, self.left_trust = self.left1 * beta1, self.left2 * beta2, self.left_trust * beta_u
        for name, p in self.p.items():
            g = [clip * x for x in raw[name]]
            self.rms[name] = beta2 * self.rms[name] + (1 - beta2) * math.sqrt(sum(x * x for x in g) / len(g))
            eps = h["epsilon"] * (self.rms[name] / (1 - self.left2) if eps_mode == "relative" else 1.0)
            update = []
            for i, x in enumerate(g):
                self.m[name][i] = beta1 * self.m[name][i] + (1 - beta1) * x
                self.s[name][i] = max(beta2 * self.s[name][i], abs(x))
                update.append(self.m[name][i] / (1 - self.left1) / (self.s[name][i] + eps) + h["weight_decay"] * p[i])
            trust = 1.0
            if self.trusted[name]:
                self.norm_u[name] = beta_u * self.norm_u[name] + (1 - beta_u) * math.hypot(*update)
                trust = max(math.hypot(*p) / (self.norm_u[name] / (1 - self.left_trust)), MINIMUM_TRUST)
            self.p[name] = [x - h["lr"] * trust * u for x, u in zip(p, update, strict=True)]
        return clip


@pytest.mark.parametrize("eps_mode", EPS_MODES)
@pytest.mark.parametrize("changed", [{}, {"lr": 0.1, "epsilon": 0.5, "clip_ratio": 0.3}, {"one_minus_beta1": 1.0, "clip_ratio": 1.5}])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_twenty_steps_equal_plain_loops(eps_mode, changed, dtype, tolerance):
    params = draw(0, dtype)
    oracle, state, clips = Oracle(params), unitless_start(params), []
    for t in range(1, 21):
        grads = draw(t, dtype, size=1.0 / t if t % 4 else 3.0)
        params, state, parts = unitless_step(params, grads, state, hypers(**changed), eps_mode)
        clips.append(oracle.step(grads, START | changed, eps_mode))
        assert float(parts.clip) == pytest.approx(clips[-1], rel=tolerance)
        for name, param in params.items():
            assert param.dtype == dtype
            assert param.flatten().tolist() == pytest.approx(oracle.p[name], rel=tolerance, abs=tolerance)
    assert state.group.norm_max.dtype == torch.float64
    if changed.get("clip_ratio") == 1.5:
        assert set(clips) == {1.0}
    else:
        assert min(clips) < 1.0 == max(clips)


def test_knobs_may_change_at_every_step():
    rng = torch.Generator().manual_seed(5)
    params = draw(0)
    oracle, state = Oracle(params), unitless_start(params)
    for t in range(1, 21):
        factors = torch.exp(torch.randn(8, generator=rng, dtype=torch.float64)).tolist()
        h = {name: min(value * factor, 1.0) for (name, value), factor in zip(START.items(), factors, strict=True)}
        params, state, _ = unitless_step(params, draw(t), state, hypers(**h))
        oracle.step(draw(t), h, "relative")
    for name, param in params.items():
        assert param.flatten().tolist() == pytest.approx(oracle.p[name], rel=1e-11, abs=1e-13)
