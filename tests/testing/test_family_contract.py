"""A user's family: every clause finds the one fault that it is for, in a family that is otherwise good."""

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from metaopt import tasks
from metaopt.errors import ConfigError
from metaopt.tasks.families.quadratic import Quadratic, QuadraticFamily
from metaopt.tasks.task import Task, TaskSpec
from metaopt.testing import FAMILY_CLAUSES, TASK_CLAUSES, ContractError, check_family

GRID = {"meta_train": {"a": (6, 1, "none")}, "meta_test": {"b": (4, 2, "none")}}
FOUND = [clause for clause in TASK_CLAUSES if clause != "learnable"]  # tried on good families only: it is slow


@dataclass(frozen=True)
class Family(QuadraticFamily):
    """Good as it is; `program` takes the place of `Quadratic`."""

    name: str = "users"
    program: type[Quadratic] = Quadratic

    def build(self, spec: TaskSpec) -> Task:
        task = super().build(spec)
        return replace(task, program=self.program(task.program.rows, task.program.columns, task.program.noise))


def assert_only(family: tasks.Family, clause: str, observed: str) -> None:
    """Assert that a family breaks one clause, named with what was seen, and no other."""
    with pytest.raises(ContractError) as caught:
        check_family(family, skip=["learnable"])
    assert caught.value.clause == clause
    assert observed in caught.value.observed
    check_family(family, skip=["learnable", clause])


@pytest.mark.parametrize("family", [Family(GRID), tasks.get("quadratic"), tasks.get("digits_mlp")], ids=lambda f: f.name)
def test_good_families_keep_every_clause(family: tasks.Family) -> None:
    assert check_family(family) == (*FAMILY_CLAUSES, *TASK_CLAUSES)
    assert check_family(family, only=["named", "scalar"]) == ("named", "scalar")


class Vector(Quadratic):
    def loss(self, numbers, params, batch):
        return super().loss(numbers, params, batch).reshape(1)


class Number(Quadratic):
    def loss(self, numbers, params, batch):
        return 0.5


class Growing(Quadratic):
    def batch(self, numbers, shared, key, step):
        return {"noise": torch.zeros_like(numbers["minimum"]), "more": torch.zeros(1 + int(step))}


class Retyped(Quadratic):
    def heldout(self, numbers, shared, key, step):
        noise = super().heldout(numbers, shared, key, step)["noise"]
        return {"noise": noise.double() if int(step) % 2 else noise}


class Exploding(Quadratic):
    def loss(self, numbers, params, batch):
        return super().loss(numbers, params, batch) * torch.where(params["x"][0, 0] > 1, float("inf"), 1.0)


class Single(Quadratic):
    def init(self, numbers, key):
        return {"x": super().init(numbers, key)["x"].float()}

    def loss(self, numbers, params, batch):
        error = (params["x"].reshape(-1) - numbers["minimum"].float()).float()
        return (0.5 * error * (numbers["hessian"].float() @ error)).sum()


class Branching(Quadratic):
    def loss(self, numbers, params, batch):
        value = super().loss(numbers, params, batch)
        return value if float(params["x"].detach().sum()) > -1e9 else 2 * value


CASES = [
    (Vector, "scalar", "a loss of (1,), torch.float32"),
    (Number, "scalar", "a loss of float"),
    (Growing, "shapes", "at step 1 after"),
    (Retyped, "shapes", "'noise': ((6,), 'float64')"),
    (Exploding, "finite_loss", "inf on the training batch of key"),
    (Single, "precision", "loss torch.float32"),
    (Branching, "vmappable", "RuntimeError: vmap"),
]


@pytest.mark.parametrize(("program", "clause", "observed"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_a_broken_program_is_found_by_name(program: type[Quadratic], clause: str, observed: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_family(Family(GRID, program=program), skip=["learnable"])
    assert caught.value.clause == clause
    assert observed in caught.value.observed
    assert "template 'a' of meta_train" in caught.value.observed
    # what comes earlier in the contract is kept: it is this fault and no other that was met first
    before = [name for name in FOUND if FOUND.index(name) < FOUND.index(clause)]
    assert check_family(Family(GRID, program=program), only=[*FAMILY_CLAUSES, *before]) == (*FAMILY_CLAUSES, *before)


def draw(generator: str) -> torch.Tensor:
    if generator == "torch":
        return torch.rand(())
    return torch.tensor(np.random.rand() if generator == "numpy" else random.random(), dtype=torch.float32)  # noqa: NPY002


def move(generator: str) -> None:
    {"torch": torch.manual_seed, "numpy": np.random.seed, "random": random.seed}[generator](7)


@pytest.mark.parametrize("generator", ["torch", "numpy", "random"])
@pytest.mark.parametrize("where", ["init", "batch", "heldout", "loss"])
def test_a_program_that_follows_a_global_generator_is_found(generator: str, where: str) -> None:
    class Follower(Quadratic):
        def init(self, numbers, key):
            return {"x": super().init(numbers, key)["x"] + (draw(generator) if where == "init" else 0)}

        def batch(self, numbers, shared, key, step):
            return {"noise": super().batch(numbers, shared, key, step)["noise"] + (draw(generator) if where == "batch" else 0)}

        def heldout(self, numbers, shared, key, step):
            return {"noise": super().heldout(numbers, shared, key, step)["noise"] + (draw(generator) if where == "heldout" else 0)}

        def loss(self, numbers, params, batch):
            return super().loss(numbers, params, batch) * (1 + draw(generator) if where == "loss" else 1)

    noisy = {"meta_train": {"a": (6, 1, "gradient")}}
    with pytest.raises(ContractError) as caught:
        check_family(Family(noisy, program=Follower), skip=["learnable"])
    assert caught.value.clause == "isolated"
    assert f"reads {generator}" in caught.value.observed
    assert f"changes {generator}" in caught.value.observed


@pytest.mark.parametrize("generator", ["torch", "numpy", "random"])
def test_a_program_that_only_moves_a_global_generator_is_found(generator: str) -> None:
    class Seeder(Quadratic):
        def batch(self, numbers, shared, key, step):
            move(generator)
            return super().batch(numbers, shared, key, step)

    assert_only(Family(GRID, program=Seeder), "isolated", f"it changes {generator}, template 'a' of meta_train")


def test_a_program_with_a_memory_is_found_impure() -> None:
    count = [0]

    class Counting(Quadratic):
        def batch(self, numbers, shared, key, step):
            count[0] += 1
            return {"noise": torch.full_like(numbers["minimum"], count[0])}

    with pytest.raises(ContractError) as caught:
        check_family(Family(GRID, program=Counting), skip=["learnable"])
    assert (caught.value.clause, caught.value.observed[:32]) == ("pure", "another batch at the second call")


@pytest.mark.parametrize("holes", ["data", "numbers"])
def test_data_that_is_not_finite_is_found(holes: str) -> None:
    @dataclass(frozen=True)
    class Users(Family):
        def build(self, spec):
            task = super().build(spec)
            if holes == "data":
                return replace(task, shared={"table": torch.tensor([1.0, float("nan"), float("inf")])})
            return replace(task, numbers={**task.numbers, "unused": torch.tensor(float("nan"))})

    seen = "2 of 3 entries of shared 'table'" if holes == "data" else "1 of 1 entries of numbers 'unused'"
    assert_only(Users(GRID), "finite_data", f"{seen} that are not finite")


class Random(Family):
    """Numbers from outside: the operating system's entropy, or a count of builds."""

    def build(self, spec):
        task = super().build(spec)
        return replace(task, numbers={**task.numbers, "noise": torch.tensor(random.SystemRandom().random())})


def test_a_build_that_differs_from_call_to_call_is_found() -> None:
    assert_only(Random(GRID), "deterministic_build", "other numbers for one spec of 'a'")


@pytest.mark.parametrize("generator", ["torch", "numpy", "random"])
def test_a_build_that_follows_a_global_generator_is_found(generator: str) -> None:
    class Users(Family):
        def build(self, spec):
            return replace(super().build(spec), shared={"table": draw(generator)})

    with pytest.raises(ContractError) as caught:
        check_family(Users(GRID))
    assert caught.value.clause == "isolated_build"
    assert f"reads {generator}, changes {generator}" in caught.value.observed


class Sampled(Family):
    """`values` are added to those of every spec."""

    values = {}  # noqa: RUF012

    def sample(self, template, seed, horizon):
        spec = super().sample(template, seed, horizon)
        return replace(spec, values={**spec.values, **self.values})


@pytest.mark.parametrize(
    ("values", "observed"),
    [
        ({"sizes": (3, 4)}, "values of 'a' that are no JSON scalars: sizes"),
        ({"sizes": [3, 4]}, "values of 'a' that are no scalars: sizes"),
        ({"width": np.float64(0.5)}, "values of 'a' that are no JSON scalars: width"),
        ({"width": np.int64(3)}, "TypeError"),
        ({"width": torch.tensor(1.0)}, "TypeError"),
        ({"width": float("nan")}, "ValueError"),
    ],
    ids=["tuple", "list", "numpy float", "numpy integer", "tensor", "nan"],
)
def test_a_spec_that_json_does_not_keep_is_found(values: dict[str, object], observed: str) -> None:
    class Users(Sampled):
        pass

    Users.values = values
    with pytest.raises(ContractError) as caught:
        check_family(Users(GRID), skip=["samples"])  # a NaN differs from itself
    assert caught.value.clause == "spec_is_json"
    assert observed in caught.value.observed


def test_splits_that_share_a_template_or_a_program_are_found() -> None:
    twice = {"meta_train": {"a": (6, 1, "none"), "b": (4, 2, "none")}, "meta_test": {"c": (4, 2, "none")}}
    assert_only(Family(twice), "disjoint_splits", "is in meta_train and in meta_test; splits must share no template")

    class Forgetful(Family):
        def sample(self, template, seed, horizon):
            return replace(super().sample("a", seed, horizon), template=template, split="meta_train" if template == "a" else "meta_test")

        def build(self, spec):
            return super().build(replace(spec, template="a", split="meta_train"))

    assert_only(Forgetful(GRID), "disjoint_splits", "is in meta_train and in meta_test")


def test_a_sample_that_is_not_what_was_asked_for_is_found() -> None:
    class Late(Family):
        def sample(self, template, seed, horizon):
            return replace(super().sample(template, seed, horizon), horizon=1000)

    class Elsewhere(Family):
        def sample(self, template, seed, horizon):
            return replace(super().sample(template, seed, horizon), split="meta_valid")

    class Moody(Sampled):
        def sample(self, template, seed, horizon):
            return replace(super().sample(template, seed, horizon), values={"mood": random.SystemRandom().random()})

    for family, observed in (
        (Late(GRID), "horizon 1000 for the range [20, 200]"),
        (Elsewhere(GRID), "a spec of ('users', 'a', 'meta_valid') for template 'a' of meta_train"),
        (Moody(GRID), "for the same seed and template 'a'"),
    ):
        with pytest.raises(ContractError) as caught:
            check_family(family)
        assert caught.value.clause == "samples"
        assert observed in caught.value.observed


def test_a_template_whose_shape_varies_is_found() -> None:
    class Wide(Family):
        def build(self, spec):
            task = super().build(spec)
            return replace(task, numbers={**task.numbers, "extra": torch.zeros(1 + int(spec.values["seed"]) % 3)})

    class Noisy(Family):
        def build(self, spec):
            task = super().build(spec)
            return replace(task, program=replace(task.program, noise="minimum" if spec.horizon == 7 else "none"))

    assert_only(Wide(GRID), "one_shape", "numbers {")
    assert_only(Noisy(GRID), "one_shape", "for template 'a'")


def test_double_precision_and_a_forgotten_horizon_are_found() -> None:
    class Double(Family):
        def build(self, spec):
            task = super().build(spec)
            return replace(task, shared={"table": torch.zeros(2, dtype=torch.float64)})

    class Fixed(Family):
        def build(self, spec):
            task = super().build(spec)
            return replace(task, numbers={**task.numbers, "horizon": torch.tensor(50.0)})

    assert_only(Double(GRID), "single_precision", "'table' of 'a' in torch.float64 on cpu")
    assert_only(Fixed(GRID), "single_precision", "horizon 50.0 for a spec of")


def test_a_family_without_templates_or_with_a_made_up_offer_is_found() -> None:
    for family, observed in (
        (Family({}), "no template in any split"),
        (Family(GRID, offers=("gradients",)), "offers ('gradients',)"),
        (Family(GRID, name=""), "name ''"),
    ):
        with pytest.raises(ContractError) as caught:
            check_family(family)
        assert (caught.value.clause, caught.value.observed) == ("named", observed)


def test_clauses_are_named_in_either_contract() -> None:
    with pytest.raises(ConfigError, match=r"clause 'splits' does not exist; there are named, samples, .*, learnable"):
        check_family(Family(GRID), only=["splits"])
    assert not set(FAMILY_CLAUSES) & set(TASK_CLAUSES)


def test_generators_are_as_they_were_afterwards() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    check_family(Family(GRID), skip=["learnable"])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])  # noqa: NPY002
