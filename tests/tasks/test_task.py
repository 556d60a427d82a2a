"""Specs, normalisation, stacking, and what every bundled family promises."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import ConfigError, TaskError
from metaopt.tasks import registry
from metaopt.tasks.data.digits import DIGITS
from metaopt.tasks.families.images import classification
from metaopt.tasks.families.quadratic import QuadraticFamily
from metaopt.tasks.sampling import Sampler
from metaopt.tasks.task import Task, TaskSpec, stack_tasks

FAMILIES = ("quadratic", "digits_mlp", "digits_conv")
TEMPLATES = [(name, template) for name in FAMILIES for split in tasks.SPLITS for template in tasks.get(name).templates(split)]


def spec_of(name: str, template: str, seed: int = 0, horizon: tuple[int, int] = (10, 500)) -> TaskSpec:
    return tasks.get(name).sample(template, seed, horizon)


scalars = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=5), scalars, max_size=4), st.integers(1, 10**6), st.sampled_from(tasks.SPLITS))
def test_json_round_trip_keeps_bytes_and_hash(values, horizon: int, split: str) -> None:
    spec = TaskSpec("family", "template", split, values, horizon)
    again = TaskSpec.from_json(spec.to_json())
    assert again == spec
    assert again.to_json().encode() == spec.to_json().encode()
    assert again.hash == spec.hash
    shuffled = TaskSpec("family", "template", split, dict(reversed(values.items())), horizon)
    assert shuffled.hash == spec.hash


def test_hash_depends_on_every_field() -> None:
    base = {"family": "f", "template": "t", "split": "meta_train", "values": {"a": 1}, "horizon": 5}
    changes = [{}, {"family": "g"}, {"template": "u"}, {"split": "meta_test"}, {"values": {"a": 2}}, {"values": {"b": 1}}, {"horizon": 6}]
    hashes = {TaskSpec(**(base | change)).hash for change in changes}
    assert len(hashes) == len(changes)
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in hashes)
    assert json.loads(TaskSpec(**base).to_json()) == base


def test_bad_specs_are_named() -> None:
    with pytest.raises(TaskError, match="task split must be one of meta_train, meta_valid, meta_test, got 'train'"):
        TaskSpec("f", "t", "train", {}, 5)
    with pytest.raises(TaskError, match="task horizon must be >= 1, got 0"):
        TaskSpec("f", "t", "meta_train", {}, 0)
    with pytest.raises(ValueError, match="JSON"):
        TaskSpec("f", "t", "meta_train", {"a": math.nan}, 1).to_json()


@pytest.mark.parametrize(("name", "template"), TEMPLATES)
def test_every_template_builds_the_same_task_every_time(name: str, template: str) -> None:
    spec = spec_of(name, template, seed=3)
    assert spec == spec_of(name, template, seed=3)
    assert spec != spec_of(name, template, seed=4)
    assert 10 <= spec.horizon <= 500
    assert spec.split == tasks.split_of(tasks.get(name), template)
    one, two = tasks.build(spec), tasks.build(TaskSpec.from_json(spec.to_json()))
    assert one.program == two.program
    assert hash(one.program) == hash(two.program)
    assert all(torch.equal(one.numbers[key], two.numbers[key]) for key in one.numbers)
    assert float(one.horizon) == spec.horizon
    assert all(value.dtype == torch.float32 for value in one.numbers.values())
    other = tasks.build(spec_of(name, template, seed=4))
    assert other.program == one.program  # one template is one static shape
    key = seeds.key("run")
    for task in (one, other):
        assert {k: v.shape for k, v in task.init(key).items()} == {k: v.shape for k, v in one.init(key).items()}


@pytest.mark.parametrize(("name", "template"), TEMPLATES[::3])
def test_batches_are_functions_of_key_and_step(name: str, template: str) -> None:
    task, key = tasks.build(spec_of(name, template)), seeds.key("run")

    def same(a, b) -> bool:
        return all(torch.equal(a[k], b[k]) for k in a)

    first = task.batch(key, torch.tensor(4))
    assert same(first, task.batch(key, torch.tensor(4)))
    noisy = name != "quadratic" or not template.endswith("none")
    assert same(first, task.batch(key, torch.tensor(5))) != noisy
    assert same(first, task.batch(seeds.key("other"), torch.tensor(4))) != noisy


@pytest.mark.parametrize("name", FAMILIES)
def test_splits_are_disjoint(name: str) -> None:
    family = tasks.get(name)
    tasks.check_templates(family)
    assert family.templates("meta_test")
    assert family.templates("nonsense") == ()
    with pytest.raises(TaskError, match=f"family {name} has no template 'nonsense'"):
        tasks.split_of(family, "nonsense")


def test_a_shared_template_is_refused() -> None:
    grid = {"meta_train": {"4x1": (4, 1, "none")}, "meta_test": {"4x1": (4, 1, "none")}}
    with pytest.raises(TaskError, match="4x1 is in meta_train and in meta_test; splits must share no template"):
        tasks.check_templates(QuadraticFamily(grid, name="quadratic"))


def test_one_program_under_two_names_is_refused() -> None:
    shape = {"width": 8, "depth": 1, "batch": 4}
    grid = {"meta_train": {"plain": shape}, "meta_valid": {"disguised": {**shape, "activation": "relu"}}}
    with pytest.raises(TaskError, match="is in meta_train and in meta_valid"):
        tasks.check_templates(classification("own", DIGITS, "mlp", grid))


def test_registering_twice_or_badly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.REGISTRY, "_entries", dict(registry.REGISTRY))
    with pytest.raises(ConfigError, match="task family 'quadratic' is registered already"):
        tasks.register(QuadraticFamily({}))
    own = QuadraticFamily({"meta_train": {"3x1": (3, 1, "none")}}, name="own")
    tasks.register(own)
    assert tasks.get("own") is own
    assert "own" in tasks.names()
    with pytest.raises(ConfigError, match=r"task family 'quadratics' is unknown; did you mean 'quadratic'\?"):
        tasks.get("quadratics")


def test_a_refused_family_does_not_stay_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.REGISTRY, "_entries", dict(registry.REGISTRY))
    shared = {"4x1": (4, 1, "none")}
    with pytest.raises(TaskError):
        tasks.register(QuadraticFamily({"meta_train": shared, "meta_test": shared}, name="overlapping"))
    assert "overlapping" not in tasks.names()


@dataclass(frozen=True)
class Plain:
    cap: float = 3.0

    def normalise(self, numbers, raw):
        return raw / 2.0


def test_normalised_loss_is_capped_and_never_nonfinite() -> None:
    task = Task(Plain(), {"horizon": torch.tensor(1.0)}, {})
    raw = torch.tensor([4.0, 6.0, 100.0, math.inf, -math.inf, math.nan, -2.0])
    assert task.normalise(raw).tolist() == [2.0, 3.0, 3.0, 3.0, 3.0, 3.0, -1.0]


@pytest.mark.parametrize(("name", "template"), [t for t in TEMPLATES if t[0] != "quadratic"])
def test_classifiers_begin_near_one(name: str, template: str) -> None:
    spec = spec_of(name, template)
    task = tasks.build(TaskSpec(spec.family, spec.template, spec.split, {**spec.values, "init_scale": 1.0}, spec.horizon))
    losses = [
        float(task.normalise(task.loss(task.init(key), task.heldout(key, torch.tensor(0))))) for key in (seeds.key(i) for i in range(5))
    ]
    assert 0.9 < sum(losses) / 5 < 1.5


def test_stacking_needs_one_program() -> None:
    small = [tasks.build(spec_of("quadratic", "10x1-none", i)) for i in range(3)]
    stacked = stack_tasks(small)
    assert stacked.numbers["hessian"].shape == (3, 10, 10)
    assert stacked.horizon.tolist() == [float(task.horizon) for task in small]
    with pytest.raises(TaskError, match=r"must share a program, got Quadratic\(rows=10, columns=1, noise='none'.*noise='gradient'"):
        stack_tasks([small[0], tasks.build(spec_of("quadratic", "10x1-gradient"))])
    with pytest.raises(TaskError, match="at least one task, got none"):
        stack_tasks([])


def test_moving_a_task_changes_floats_only() -> None:
    task = tasks.build(spec_of("digits_mlp", "16-tanh-b32")).to(dtype=torch.float64)
    assert task.horizon.dtype == task.shared["train_x"].dtype == torch.float64
    assert task.shared["train_y"].dtype == torch.int64
    assert all(value.dtype == torch.float64 for value in task.init(seeds.key("run")).values())


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 500), st.integers(0, 500), st.integers(0, 10**9))
def test_log_integer_stays_in_its_closed_range(low: int, span: int, seed: int) -> None:
    assert low <= Sampler("f", "t", seed).log_integer("x", low, low + span) <= low + span


def test_draws_are_log_uniform_and_independent_of_each_other() -> None:
    draws = [Sampler("f", "t", seed) for seed in range(2000)]
    logs = torch.tensor([math.log(draw.log_uniform("x", 0.1, 10.0)) for draw in draws])
    assert float(logs.mean()) == pytest.approx(0.0, abs=0.15)
    assert float(logs.std()) == pytest.approx(math.log(100) / 12**0.5, rel=0.05)
    other = torch.tensor([draw.uniform("y") for draw in draws])
    assert abs(float(torch.corrcoef(torch.stack([logs, other]))[0, 1])) < 0.1
    assert {Sampler("f", "t", seed).log_integer("n", 1, 3) for seed in range(50)} == {1, 2, 3}
    assert draws[0].uniform("x") != Sampler("g", "t", 0).uniform("x") != Sampler("f", "u", 0).uniform("x")


@pytest.mark.parametrize(
    ("name", "template", "lr", "below"), [("digits_mlp", "16-tanh-b32", 0.02, 0.25), ("digits_conv", "12-tanh-b48", 0.05, 0.8)]
)
def test_bundled_classifiers_can_be_learned(name: str, template: str, lr: float, below: float) -> None:
    task = tasks.build(spec_of(name, template, horizon=(100, 100)))
    trace = inner.run(learners.get("adam", lr=lr, schedule="warmup_cosine"), {}, [task], [0], 100, eval_every=100)
    assert float(trace.eval_loss[-1, 0]) < below < float(trace.eval_loss[0, 0])
