"""Maximal update parametrisation: the table of initial values and multipliers, the family in it, and what it is for."""

import math

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import TaskError
from metaopt.tasks import Task
from metaopt.tasks.augmentations import Reparametrisation
from metaopt.tasks.families.supervised import Supervised
from metaopt.tasks.models import MLP
from metaopt.tasks.models.transformer import Transformer

ONE = torch.tensor(1.0)
MU = MLP((64, 400, 300, 200, 10), "relu", parametrisation="mu")


def test_initial_values_follow_the_table() -> None:
    params = MU.init(seeds.key(0), ONE)
    for i, fan_in in enumerate((64, 400, 300)):
        assert float(params[f"layer{i}.weight"].std()) == pytest.approx(1 / math.sqrt(fan_in), rel=0.03)
        assert float(params[f"layer{i}.bias"].std()) == pytest.approx(1.0, rel=0.15)
    assert not params["layer3.weight"].any()
    assert float(params["layer3.bias"].std()) > 0.3
    plain = MLP(MU.sizes, "relu").init(seeds.key(0), ONE)
    assert all(torch.equal(params[f"layer{i}.weight"], plain[f"layer{i}.weight"]) for i in range(3))
    assert not any(plain[f"layer{i}.bias"].any() for i in range(4))


def test_the_output_is_divided_by_its_fan_in() -> None:
    params = {name: torch.ones_like(value) for name, value in MU.init(seeds.key(0), ONE).items()}
    x = torch.ones(2, 64)
    plain = MLP(MU.sizes, "relu")
    torch.testing.assert_close(MU.apply(params, x), plain.apply(params, x) / 200)
    for i, one in enumerate(MU.preactivations(params, x)[:-1]):
        assert torch.equal(one, plain.preactivations(params, x)[i])
    assert [tuple(one.shape) for one in MU.preactivations(params, x)] == [(2, 400), (2, 300), (2, 200), (2, 10)]


def test_only_steps_of_hidden_matrices_are_scaled() -> None:
    assert MU.step_scales == {"layer1.weight": 1 / 400, "layer2.weight": 1 / 300}
    assert MLP(MU.sizes, "relu").step_scales == {}
    assert MLP((64, 32, 10), "relu", parametrisation="mu").step_scales == {}  # an input and an output layer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parametrisation": "mup"}, r"model parametrisation 'mup' is unknown; did you mean 'mu'\? known: standard, mu"),
        ({"parametrisation": "mu", "sizes": (4, 2)}, r"parametrisation 'mu' needs a hidden layer, got MLP sizes \(4, 2\)"),
        ({"parametrisation": "mu", "initialiser": "fan_avg"}, r"variance 1 / fan_in \(normal, uniform\), got 'fan_avg'"),
    ],
)
def test_what_the_parametrisation_does_not_fit_is_refused(options, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        MLP(**{"sizes": (4, 3, 2), "activation": "relu", **options})


@pytest.mark.parametrize("name", ["digits_mlp_mu", "text_transformer_mu"])
def test_the_splits_of_the_families_grow_in_width(name: str) -> None:
    family = tasks.get(name)
    widths = {split: [int(name.split("x")[0]) for name in family.templates(split)] for split in ("meta_train", "meta_test")}
    assert max(widths["meta_train"]) < min(widths["meta_test"])


def task(template: str):
    family = tasks.get("digits_mlp_mu")
    return family.build(family.sample(template, 0, (60, 60)))


def test_the_scales_reach_the_learner_through_augmentations() -> None:
    plain = task("16x3-relu-b64")
    assert plain.step_scales == {"layer1.weight": 1 / 16, "layer2.weight": 1 / 16}
    assert Reparametrisation().apply(plain, 0).step_scales == plain.step_scales


def test_scales_and_embeddings_of_a_language_model() -> None:
    family = tasks.get("text_transformer_mu")
    subject = family.build(family.sample("16x2", 0, (60, 60)))
    assert subject.step_scales["layer1.down.weight"] == 1 / 32
    assert subject.embeddings == {"embed.weight", "positions"}
    assert not subject.embeddings & subject.step_scales.keys()


def final_losses(rule: str, **options: float) -> list[float]:
    learner = learners.get(rule, **options)
    finals = []
    for template in ("16x3-relu-b64", "256x3-relu-b64"):
        trace = inner.run(learner, learner.init_theta(0), [task(template)], [0], 60)
        finals.append(float(trace.normalised[-10:].mean()))
    return finals


def test_one_step_size_serves_narrow_and_wide() -> None:
    narrow, wide = final_losses("small_fc", hidden=(32, 32), step_mult=0.01)
    assert wide < narrow < 0.6  # wider is no worse at the same step size


class Sums:
    """Sequences of running sums modulo 12."""

    def shared(self):
        return {}

    def batch(self, shared, key, step):
        draws = (12 * seeds.uniform(seeds.fold_in(key, step), (16, 7), torch.float64)).long().clamp(max=11)
        return {"x": draws.cumsum(1)[:, :-1] % 12, "y": draws.cumsum(1)[:, 1:] % 12}

    def heldout(self, shared):
        return self.batch(shared, seeds.key("heldout"), torch.tensor(0))


def change_of_logits(parametrisation: str, width: int) -> float:
    """RMS change over five steps of small_fc."""
    model = Transformer(12, 6, width, 2, 2 * width, 2, parametrisation=parametrisation)
    numbers = {"init_scale": 1.0, "reference": 1.0, "floor": 0.0, "horizon": 5.0}
    subject = Task(Supervised(Sums(), model), {name: torch.tensor(value) for name, value in numbers.items()}, {})
    learner, key = learners.get("small_fc", hidden=(32, 32), norm_eps=1e-12), seeds.key("change", width)
    theta = learner.init_theta(0)
    carry = learner.init(theta, subject, key)
    inputs = Sums().heldout({})["x"]
    before = model.apply(carry["params"], inputs)
    for t in range(5):
        carry, _ = learner.advance(theta, subject, carry, subject.batch(key, torch.tensor(t)))
    return float((model.apply(carry["params"], inputs) - before).square().mean().sqrt())


def test_steps_change_the_logits_of_wide_transformers_as_those_of_narrow_ones() -> None:
    narrow, wide = (change_of_logits("mu", width) for width in (16, 128))
    assert wide == pytest.approx(narrow, rel=0.15)
    narrow, wide = (change_of_logits("standard", width) for width in (16, 128))
    assert wide > 2.5 * narrow


def test_a_transformer_in_the_parametrisation() -> None:
    mu, plain = (Transformer(12, 6, 64, 2, 96, 2, parametrisation=which) for which in ("mu", "standard"))
    params, other = mu.init(seeds.key(0), ONE), plain.init(seeds.key(0), ONE)
    assert {name for name in params if params[name].dim() >= 2 and not torch.equal(params[name], other[name])} == {"head.weight"}
    assert not params["head.weight"].any()
    biases = torch.cat([params[f"layer{i}.{which}.bias"] for i in range(2) for which in ("query", "key", "value", "out", "up", "down")])
    assert float(biases.std()) == pytest.approx(1.0, rel=0.1)
    matrices = {f"layer{i}.{which}.weight" for i in range(2) for which in ("query", "key", "value", "out", "up", "down")}
    assert mu.step_scales.keys() == matrices
    assert (mu.step_scales["layer0.up.weight"], mu.step_scales["layer1.down.weight"]) == (1 / 64, 1 / 96)
    assert plain.step_scales == {}
    with pytest.raises(TaskError, match="model parametrisation 'none' is unknown"):
        Transformer(12, 6, 64, 2, 96, 2, parametrisation="none")


def test_attention_scores_are_divided_by_the_width_of_a_head() -> None:
    """Queries times a root of the head's width undo it; nothing else differs but the division of the logits."""
    mu, plain = (Transformer(12, 6, 64, 2, 96, 1, parametrisation=which) for which in ("mu", "standard"))
    params = plain.init(seeds.key(0), ONE)
    sharper = {**params, **{name: params[name] * math.sqrt(32) for name in ("layer0.query.weight", "layer0.query.bias")}}
    x = Sums().heldout({})["x"]
    torch.testing.assert_close(mu.apply(sharper, x), plain.apply(params, x) / 64, rtol=1e-4, atol=1e-6)
