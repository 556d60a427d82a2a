"""The policy that ships: it loads by name, decides in a user's loop, knows no units, and says where it comes from."""

import torch

import metaopt
from metaopt.artifacts.policy import load_policy
from metaopt.config import load_config
from metaopt.optim import PolicyScheduler

STEPS = 48


def trained(scale: float) -> tuple[PolicyScheduler, list[float]]:
    """Return the scheduler, and the losses divided by their scale, of a short run whose loss is multiplied by `scale`."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(256, 6, generator=draw), torch.randn(256, 1, generator=draw)
    weight = torch.nn.Parameter(torch.randn(1, 6, generator=draw))
    optimizer = torch.optim.AdamW([weight], eps=1e-8 * scale)
    scheduler = PolicyScheduler(optimizer, artifact="policy-small", total_steps=STEPS, decisions=12)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (x @ weight.mT - y).square().mean() * scale
        loss.backward()
        optimizer.step()
        scheduler.step(train_loss=loss)
        losses.append(float(loss.detach()) / scale)
    return scheduler, losses


def test_it_is_listed_and_comes_from_its_config():
    rows = {row["name"]: row["kind"] for row in metaopt.artifacts.list_artifacts()}
    assert rows["policy-small"] == "policy"
    artifact = metaopt.load("policy-small")
    config = load_config("policy_small")
    assert artifact.card["training"]["config_hash"] == config.hash
    assert artifact.card["training"]["outer_steps"] == config.outer.steps
    assert artifact.card["limits"]["max_lr"] == 0.1
    assert load_policy(artifact).spec.knobs == ("lr",)


def test_it_raises_the_default_rate_and_helps():
    scheduler, losses = trained(1.0)
    rates = [row["values"]["lr"] for row in scheduler.decision_log]
    assert max(rates) > 5e-3
    assert max(rates) <= 0.1
    assert losses[-1] < 0.5 * losses[0]


def test_it_does_not_know_the_scale_of_the_loss():
    plain, losses = trained(1.0)
    scaled, same = trained(2.0**-12)
    assert [row["action"] for row in scaled.decision_log] == [row["action"] for row in plain.decision_log]
    assert same == losses
