"""When a layer reacts to an error: by counting, with cells whose only state is how much backward message they have seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.per_weight import NetworkSpec, fresh_state, learn, predict, present, stack_layers, with_examples
from metaopt.learners.per_weight.dense import Dense
from metaopt.learners.per_weight.edge import EdgeState, Theta
from metaopt.seeds import key
from tests.learners.per_weight.networks import draw

SIZES = (3, 4, 4, 2)
LAYERS = tuple(Dense(a, b) for a, b in pairwise(SIZES))


@dataclass(frozen=True)
class Counter:
    """Adds up the absolute backward messages that arrive, and hands on their mean; forward messages are the first input."""

    message = 2
    affine = True
    shared = {"seen": 1}  # noqa: RUF012

    def fresh(self, theta: Theta, key: Tensor, edges: Sequence[int], fan_in: int) -> EdgeState:
        zeros = torch.zeros(*edges, 1, dtype=torch.float64)
        return {"seen": zeros, "last": zeros, "up": zeros}

    def drive(self, theta: Theta, forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
        return forward[..., :1], backward[..., :1]

    def tick(self, theta: Theta, state: EdgeState, drive: tuple[Tensor, Tensor]) -> EdgeState:
        up, down = drive
        zeros = torch.zeros_like(state["seen"])
        return {"seen": state["seen"] + down.abs(), "last": zeros + down.abs(), "up": zeros + up}

    def readable(self, state: EdgeState) -> Tensor:
        return torch.cat([state["up"], state["last"]], -1)

    def read_forward(self, theta: Theta, seen: Tensor) -> Tensor:
        return seen[..., :1].expand(*seen.shape[:-1], 2)

    def read_backward(self, theta: Theta, seen: Tensor) -> Tensor:
        return seen[..., 1:].expand(*seen.shape[:-1], 2)


def first_reaction(schedule: str, ticks: int = 1) -> list[int]:
    """For each layer, how many examples after the first error it sees something."""
    spec = NetworkSpec(LAYERS, ticks=ticks, schedule=schedule)  # type: ignore[arg-type]
    state = fresh_state(spec, Counter(), {}, key(0))
    found = [-1] * len(LAYERS)
    for t in range(8):
        state, _ = present(spec, Counter(), {}, state, draw(1, 3, seed=t), torch.tensor([t % 2]))
        for k, name in enumerate(spec.names):
            if found[k] < 0 and bool(state["edges"][name]["seen"].abs().sum() > 0):
                found[k] = t
    return found


@pytest.mark.parametrize("ticks", [1, 2])
def test_forward_only_layers_react_late_and_the_backward_sweep_at_once(ticks: int) -> None:
    assert first_reaction("forward", ticks) == [3, 2, 1]  # K - k + 1 for k = 1, 2, 3
    assert first_reaction("forward_backward", ticks) == [0, 0, 0]


@pytest.mark.parametrize("clear", [True, False])
def test_a_forward_sweep_sees_old_backward_messages_unless_they_are_cleared(clear: bool) -> None:
    spec = NetworkSpec(LAYERS, ticks=1, schedule="forward_backward", clear_backward=clear)
    state = fresh_state(spec, Counter(), {}, key(0))
    state, _ = present(spec, Counter(), {}, state, draw(1, 3), torch.tensor([0]))
    before = {name: state["edges"][name]["seen"].clone() for name in spec.names}
    after, _ = predict(spec, Counter(), {}, state, draw(1, 3, seed=1))
    changed = [not torch.equal(after["edges"][name]["seen"], before[name]) for name in spec.names]
    assert changed == ([False] * 3 if clear else [True, True, False])  # the last layer's are always cleared


def test_unlabelled_examples_have_no_error() -> None:
    """Predicting twice without a label: the second time the last layer sees nothing."""
    spec = NetworkSpec(LAYERS[2:], ticks=1)
    state = fresh_state(spec, Counter(), {}, key(0))
    x, y = draw(1, 4), torch.tensor([1])
    state, logits = predict(spec, Counter(), {}, state, x)
    taught = learn(spec, Counter(), {}, state, logits, y)
    (once, _), (twice, _) = predict(spec, Counter(), {}, taught, x), predict(spec, Counter(), {}, state, x)
    assert float(once["edges"]["layer0"]["seen"].sum()) > 0
    assert float(twice["edges"]["layer0"]["seen"].sum()) == 0


def test_states_for_another_number_of_examples_are_means() -> None:
    spec = NetworkSpec(LAYERS, ticks=1)
    state = fresh_state(spec, Counter(), {}, key(0), 3)
    state, _ = present(spec, Counter(), {}, state, draw(3, 3), torch.tensor([0, 1, 1]))
    other = with_examples(spec, state, 5)
    for part in ("edges", "backward"):
        assert other[part].keys() == state[part].keys()
    wanted = state["edges"]["layer0"]["up"].mean(0)
    assert torch.equal(other["edges"]["layer0"]["up"], wanted.expand(5, *wanted.shape))
    assert other["backward"]["layer2"].shape == (5, 2, 2)


def test_layers_are_stacked_from_inputs_to_classes() -> None:
    assert stack_layers((6,), 3) == (Dense(6, 3),)
    assert stack_layers((1, 4, 4), 3, (5, 7)) == (Dense(16, 5), Dense(5, 7), Dense(7, 3))
    conv, dense = stack_layers((2, 7, 5), 3, (), (8,), 3, 2)
    assert (conv.edges, conv.output_shape, conv.fan_in) == ((3, 3, 2, 8), (4, 3, 8), 18)
    assert dense == Dense(96, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stack_layers((6,), 1), "classes must be >= 2, got 1"),
        (lambda: stack_layers((6,), 2, (), (8,)), r"need examples of \(channels, height, width\), got \(6,\)"),
        (lambda: stack_layers((1, 4, 4), 2, (), (8,), 0), "kernel and stride must be >= 1, got 0"),
        (lambda: NetworkSpec((Dense(3, 4), Dense(5, 2))), "do not fit"),
        (lambda: NetworkSpec(()), "must end in a dense one"),
        (lambda: NetworkSpec((Dense(3, 2),), ticks=0), "ticks must be >= 1, got 0"),
        (lambda: NetworkSpec((Dense(3, 2),), schedule="up"), "schedule must be one of forward, forward_backward, got 'up'"),  # type: ignore[arg-type]
        (lambda: NetworkSpec((Dense(3, 2),), reduce="max"), "reduce must be one of mean, sum, got 'max'"),  # type: ignore[arg-type]
        (lambda: NetworkSpec((Dense(3, 2),), logit_channel=-1), "logit_channel must be >= 0, got -1"),
    ],
)
def test_what_makes_no_network_is_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
