"""The policy network: one decision and whole batches agree, starts about uniform, is a function of its key."""

import math

import pytest
import torch

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.learners.policies import NetworkShape, PolicyNetwork, PolicySpec, entropy, log_prob

KEY = seeds.key("test network")
SHAPE = NetworkShape(inputs=7, hidden=16, nvec=(4, 2, 3))


def network(shape: NetworkShape = SHAPE, seed: int = 0) -> PolicyNetwork:
    net = PolicyNetwork(shape, seeds.fold_in(KEY, seed))
    net.normaliser.update(observations(5, 9))
    return net


def observations(*shape: int) -> torch.Tensor:
    return 3.0 * seeds.normal(seeds.fold_in(KEY, 77), (*shape, SHAPE.inputs)) + 1.0


def test_a_batch_equals_its_decisions_one_by_one() -> None:
    net, pi = network(), observations(12, 5)
    with torch.no_grad():
        whole, last = net(pi)
        state, rows = net.initial_state((5,)), []
        for pi_t in pi:
            logits, state = net.step(pi_t, state)
            rows.append(logits)
        torch.testing.assert_close(torch.stack(rows), whole, rtol=0, atol=1e-6)
        for a, b in zip(state, last, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        one, _ = net(pi[:1])
        torch.testing.assert_close(net.step(pi[0], net.initial_state((5,)))[0], one[0], rtol=0, atol=1e-6)
        halves, middle = net(pi[:6])
        torch.testing.assert_close(torch.cat([halves, net(pi[6:], middle)[0]]), whole, rtol=0, atol=1e-6)


def test_a_decision_is_the_formula_of_the_module() -> None:
    net, pi = network(), observations(5)
    trunk, state = net.trunk, net.initial_state((5,))
    with torch.no_grad():
        x = trunk.encode(net.normaliser(pi)).relu()
        y = x + trunk.lstm.step(x, state)[0]
        torch.testing.assert_close(net.step(pi, state)[0], net.heads(y + trunk.mix(y).relu()), rtol=0, atol=1e-6)


def test_reset_begins_an_episode() -> None:
    net, pi = network(), observations(8, 3)
    reset = torch.zeros(8, 3, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(net(pi, reset=reset)[0], net(pi)[0], rtol=0, atol=1e-6)
        reset[5, 1] = True
        got, fresh = net(pi, reset=reset)[0], net(pi[5:])[0]
        torch.testing.assert_close(got[5:, 1], fresh[:, 1], rtol=0, atol=1e-6)
        torch.testing.assert_close(got[:, [0, 2]], net(pi)[0][:, [0, 2]], rtol=0, atol=1e-6)
        assert float((got[5:, 1] - net(pi)[0][5:, 1]).abs().max()) > 1e-5


def test_a_step_works_under_vmap_and_functional_call() -> None:
    net, pi = network(), observations(6)
    weights = {**dict(net.named_parameters()), **dict(net.named_buffers())}

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return self.net.step(x, (h, c))[0]

    call = torch.func.vmap(
        lambda x, h, c: torch.func.functional_call(Step(), {f"net.{name}": value for name, value in weights.items()}, (x, h, c))
    )
    state = net.initial_state((6,))
    torch.testing.assert_close(call(pi, *state), net.step(pi, state)[0], rtol=0, atol=1e-6)


def test_gradients_of_a_batch_equal_those_of_its_decisions() -> None:
    net, pi = network().double(), observations(9, 4).double()
    action = torch.zeros(9, 4, 3, dtype=torch.int64)
    whole = torch.autograd.grad(log_prob(net(pi)[0], action, net.nvec).sum(), list(net.parameters()))
    state, total = net.initial_state((4,)), torch.zeros((), dtype=torch.float64)
    for t, pi_t in enumerate(pi):
        logits, state = net.step(pi_t, state)
        total = total + log_prob(logits, action[t], net.nvec).sum()
    for a, b in zip(whole, torch.autograd.grad(total, list(net.parameters())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_a_fresh_policy_is_about_uniform_and_a_function_of_its_key() -> None:
    net = network()
    spread = entropy(net(observations(4, 4))[0], net.nvec)
    assert float(spread.detach().min()) > math.log(4 * 2 * 3) - 0.01
    same, other = network(), network(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(net.heads.weight, other.heads.weight)


def test_making_one_consumes_no_global_randomness() -> None:
    before = torch.random.get_rng_state()
    network()
    assert torch.equal(before, torch.random.get_rng_state())


def test_statistics_travel_with_the_weights_and_stay_frozen() -> None:
    net = network()
    copy = PolicyNetwork(SHAPE, seeds.key("another"))
    copy.load_state_dict(net.state_dict())
    pi = observations(3, 2)
    assert torch.equal(copy(pi)[0], net(pi)[0])
    assert int(copy.normaliser.updates) == 1
    net.train()(pi)
    assert torch.equal(copy.normaliser.mean, net.normaliser.mean)


def test_the_published_size() -> None:
    net = PolicyNetwork(PolicySpec(), KEY)
    assert net.nvec == (10, 7, 3, 3, 3, 3, 5, 3, 3)
    assert PolicySpec(table="published").nvec == (10, 7, 2, 2, 2, 2, 4, 3, 3)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(0.65e6, rel=0.02)
    assert net(torch.zeros(2, 1, 161))[0].shape == (2, 1, 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "wid"}, r"policy.table: unknown 'wid'; did you mean 'wide'\?"),
        ({"knobs": ("lr", "epsilom")}, r"policy.knobs: unknown 'epsilom'; did you mean 'epsilon'\?"),
        ({"inner": ("adamww",)}, "policy.inner: unknown 'adamww'"),
        ({"hidden": 0}, "policy.hidden must be at least 1, got 0"),
    ],
)
def test_a_bad_spec_says_what_is_wrong(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PolicySpec(**options)
