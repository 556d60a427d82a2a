"""Families of shapes: what a spec holds, what a task is built from, and the programs that predict."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional as F

from metaopt import seeds, tasks
from metaopt.errors import TaskError
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.families.supervised import Supervised, cross_entropy
from metaopt.tasks.models import MLP
from metaopt.tasks.task import TaskSpec


@dataclass(frozen=True)
class Line:
    """Points on a line; a stream without a data set."""

    batch_size: int

    def shared(self):
        return {"slope": torch.tensor(2.0)}

    def batch(self, shared, key, step):
        x = seeds.normal(seeds.fold_in(key, step), (self.batch_size, 1), shared["slope"].dtype)
        return {"x": x, "y": (x * shared["slope"]).squeeze(-1)}

    def heldout(self, shared):
        x = torch.linspace(-1, 1, 5, dtype=shared["slope"].dtype).unsqueeze(-1)
        return {"x": x, "y": (x * shared["slope"]).squeeze(-1)}


def line_program(shape):
    return Supervised(Line(shape["batch"]), MLP((1, 1), "tanh"), amounts=True)


def constants(program):
    return {"reference": 4.0, "floor": 1.0}


FAMILY = ShapedFamily(
    "lines",
    {"meta_train": {"b4": {"batch": 4}}, "meta_test": {"b8": {"batch": 8}}},
    line_program,
    constants,
    (0.5, 2.0),
    marks=lambda: {"m": "1"},
)


def test_specs_hold_the_scale_and_the_marks() -> None:
    specs = [FAMILY.sample("b4", seed, (10, 100)) for seed in range(200)]
    scales = torch.tensor([spec.values["init_scale"] for spec in specs])
    assert 0.5 <= float(scales.min()) < 0.6 < 1.7 < float(scales.max()) < 2.0
    assert all(spec.values["m"] == "1" and 10 <= spec.horizon <= 100 and spec.split == "meta_train" for spec in specs)
    assert len({spec.horizon for spec in specs}) > 30
    assert specs[3] == FAMILY.sample("b4", 3, (10, 100))
    tasks.check_templates(FAMILY)


def test_tasks_hold_what_the_spec_and_the_program_say() -> None:
    spec = FAMILY.sample("b8", 0, (50, 50))
    task = FAMILY.build(TaskSpec.from_json(spec.to_json()))
    assert {name: float(value) for name, value in task.numbers.items()} == {
        "init_scale": pytest.approx(spec.values["init_scale"]), "reference": 4.0, "floor": 1.0, "horizon": 50.0,
    }  # fmt: skip
    assert task.program == line_program({"batch": 8})
    assert task.normalise(torch.tensor([4.0, 1.0, 2.5])).tolist() == [1.0, 0.0, 0.5]


def test_unknown_templates_are_named() -> None:
    with pytest.raises(TaskError, match="lines has no template 'b4' in meta_test; it has b8"):
        FAMILY.build(TaskSpec("lines", "b4", "meta_test", {"init_scale": 1.0}, 5))
    with pytest.raises(TaskError, match="lines has no template 'b4' in meta_valid; it has none"):
        FAMILY.build(TaskSpec("lines", "b4", "meta_valid", {"init_scale": 1.0}, 5))


def test_amounts_are_a_mean_squared_error() -> None:
    task = FAMILY.build(FAMILY.sample("b8", 0, (50, 50)))
    params, batch = task.init(seeds.key("run")), task.batch(seeds.key("run"), torch.tensor(0))
    weight, bias = float(params["layer0.weight"]), float(params["layer0.bias"])
    want = sum((weight * x + bias - y) ** 2 for x, y in zip(batch["x"][:, 0].tolist(), batch["y"].tolist(), strict=True)) / 8
    assert float(task.loss(params, batch)) == pytest.approx(want, rel=1e-5)


def test_cross_entropy_is_torchs_over_any_axes() -> None:
    logits, labels = seeds.normal(seeds.key("l"), (3, 4, 5), torch.float64), seeds.randint(seeds.key("y"), (3, 4), 5)
    torch.testing.assert_close(cross_entropy(logits, labels), F.cross_entropy(logits.reshape(12, 5), labels.reshape(12)))
    assert float(cross_entropy(torch.zeros(3, 7), torch.zeros(3, dtype=torch.int64))) == pytest.approx(math.log(7))


def test_a_program_tells_what_its_model_says_of_parameters() -> None:
    @dataclass(frozen=True)
    class Marked:
        embeddings = frozenset({"table"})
        step_scales = {"table": 0.5}  # noqa: RUF012

    plain, marked = Supervised(Line(2), MLP((1, 1), "tanh")), Supervised(Line(2), Marked())
    assert (plain.embeddings, plain.step_scales) == (frozenset(), {})
    assert (marked.embeddings, marked.step_scales) == ({"table"}, {"table": 0.5})
