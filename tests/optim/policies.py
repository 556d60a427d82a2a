"""Untrained policies that decide, and runs that they control; shared by the tests of `PolicyScheduler`."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from metaopt import seeds
from metaopt.artifacts import Artifact
from metaopt.artifacts.policy import policy_artifact
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec
from metaopt.optim import PolicyScheduler

TOTAL, DECISIONS = 36, 8
EXAMPLES, FEATURES = 24, 3


def policy(seed: int = 0, loud: float = 200.0, hidden: int = 12, saves: bool = False, **spec: Any) -> Artifact:
    """An artifact of a network whose heads are `loud` times those of a fresh one, so that its choices depend on what it sees.

    With `saves` it always saves to a register or swaps with one.
    """
    network = PolicyNetwork(PolicySpec(hidden=hidden, **spec), seeds.key("policy of a test", seed))
    with torch.no_grad():
        network.heads.weight.mul_(loud)
        network.heads.bias[4:10] += 1e3 * saves
    return policy_artifact("mine", network)


def always(choices: dict[int, int], **spec: Any) -> Artifact:
    """An artifact that makes the same choice of each head {head: choice} whatever it sees, and the first one of other heads."""
    network = PolicyNetwork(PolicySpec(hidden=4, **spec), seeds.key("constant policy", 0))
    with torch.no_grad():
        network.heads.weight.zero_()
        for head, choice in choices.items():
            network.heads.bias[sum(network.nvec[:head]) + choice] = 1.0
    return policy_artifact("always", network)


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def model(seed: int = 5, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 1))
    with torch.no_grad():
        for place, param in enumerate(net.parameters()):
            param.copy_(numbers(100 * seed + place, *param.shape) * 0.5)
    return net.to(dtype)


def loss_of(net: nn.Module, step: int, scale: float = 1.0) -> Tensor:
    """The training loss of a step, times a scale."""
    dtype = next(net.parameters()).dtype
    x = numbers(1000 + step, EXAMPLES, FEATURES).to(dtype)
    loss: Tensor = (net(x) - x.square().sum(1, keepdim=True)).square().mean()
    return loss * scale


class Run:
    """A model, its optimizer, a scheduler, and registers in memory."""

    def __init__(
        self,
        make: Callable[[Any], torch.optim.Optimizer],
        artifact: Artifact,
        scale: float = 1.0,
        registers: bool = False,
        heldout: bool = False,
        total_steps: int = TOTAL,
        decisions: int = DECISIONS,
        **options: Any,
    ) -> None:
        self.net, self.scale = model(), scale
        self.optimizer = make(self.net.parameters())
        self.stored: dict[int, dict[str, Any]] = {}
        self.calls: list[tuple[str, int]] = []
        if registers:
            options |= {"save_fn": self.save, "load_fn": self.load}
        if heldout:
            options |= {"eval_fn": lambda: loss_of(self.net, 999, self.scale)}
        self.scheduler = PolicyScheduler(self.optimizer, artifact, total_steps, decisions, **options)
        self.at = 0

    def save(self, slot: int) -> None:
        self.calls.append(("save", slot))
        state = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        self.stored[slot] = torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, state)

    def load(self, slot: int) -> None:
        self.calls.append(("load", slot))
        self.net.load_state_dict(self.stored[slot]["net"])
        self.optimizer.load_state_dict(self.stored[slot]["optimizer"])

    def advance(self, steps: int = TOTAL) -> "Run":
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = loss_of(self.net, self.at, self.scale)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step(train_loss=loss)
            self.at += 1
        return self

    def weights(self) -> Iterator[Tensor]:
        return (param.detach() for param in self.net.parameters())

    @property
    def log(self) -> list[dict[str, Any]]:
        return self.scheduler.decision_log
