"""Starts and knobs of the inner optimizers."""

import pytest
import torch

from metaopt.errors import ConfigError
from metaopt.learners.policies.knobs import KNOBS, start_values
from metaopt.learners.policies.starts import ADAMW_KNOBS, inner_knobs, inner_start


def test_adamw_starts_where_torchs_own_does():
    group = torch.optim.AdamW([torch.zeros(1, requires_grad=True)]).param_groups[0]
    found = dict(zip(KNOBS, inner_start("adamw").tolist(), strict=True))
    assert found["lr"] == group["lr"]
    assert found["weight_decay"] == group["weight_decay"]
    assert found["epsilon"] == group["eps"]
    assert found["one_minus_beta1"] == pytest.approx(1 - group["betas"][0])
    assert found["one_minus_beta2"] == pytest.approx(1 - group["betas"][1])
    assert torch.equal(inner_start("adamw")[5:], start_values()[5:])


def test_unitless_adam_starts_at_the_published_values():
    assert torch.equal(inner_start("unitless_adam"), start_values())


def test_adamw_has_five_knobs_and_unitless_adam_all():
    assert {name for name, has in zip(KNOBS, inner_knobs("adamw").tolist(), strict=True) if has} == ADAMW_KNOBS
    assert inner_knobs("unitless_adam").all()
    assert inner_knobs("adamw", ("lr", "clip_ratio")).tolist() == [True] + [False] * 7


@pytest.mark.parametrize("of", [inner_start, inner_knobs])
def test_an_unknown_optimizer_is_a_clear_error(of):
    with pytest.raises(ConfigError, match=r"'adamv' is unknown.*adamw"):
        of("adamv")
