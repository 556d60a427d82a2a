"""Choosing augmentations and applying them together: frequencies, purity, derivatives, every bundled family, compiled code."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.func import vmap
from torch.utils._pytree import tree_leaves

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import ConfigError, TaskError
from metaopt.learners import GradientLearner
from metaopt.learners.update_rules import get_rule
from metaopt.tasks.augmentations import (
    AUGMENTATIONS,
    PRESETS,
    Augmentation,
    DelayedGradients,
    EvolutionGradients,
    GradientNoise,
    RandomDirections,
    Reparametrisation,
    augment,
    settle,
)
from metaopt.tasks.augmentations.wrapper import Wrapper
from metaopt.tasks.families.quadratic import Quadratic
from metaopt.tasks.task import Task
from metaopt.testing import check_task
from tests.tasks.augmentations.bench import bowl, digits

ALL = tuple(AUGMENTATIONS)
FITTING = {"bowl": tuple(name for name in ALL if name != "reduced_batch"), "digits": ALL}


def test_the_preset_chooses_with_the_published_probabilities() -> None:
    published = {
        "reparametrisation": 5 / 7, "reduced_batch": 0.2, "bfloat16": 0.2, "evolution_gradients": 0.08, "random_directions": 0.08,
        "normalised_gradients": 0.05, "delayed_gradients": 0.05,
    }  # fmt: skip
    assert {a.name: a.probability for a in PRESETS["velo"]} == published
    count = 3000
    chosen = [{a.name for a in settle(PRESETS["velo"], seed)} for seed in range(count)]
    for name, p in published.items():
        assert abs(sum(name in names for names in chosen) / count - p) < 4 * math.sqrt(p * (1 - p) / count), name
    both = sum({"reduced_batch", "bfloat16"} <= names for names in chosen) / count
    assert abs(both - 0.04) < 4 * math.sqrt(0.04 * 0.96 / count)  # independent of each other
    options = {a.name: a for a in PRESETS["velo"]}
    assert options["reparametrisation"].scale == (1e-3, 1e3)
    assert (options["evolution_gradients"].std, options["evolution_gradients"].pairs) == ((1e-3, 0.1), (1, 16))
    assert options["random_directions"].directions == (1, 1024)
    assert options["delayed_gradients"].steps == (1, 8)
    assert options["reduced_batch"].fraction == (0.01, 1.0)


def test_few_programs_come_of_the_preset() -> None:
    """A source needs one compiled step; many sources of one template share those of common choices."""
    task = digits()
    programs = [augment(task, settle(PRESETS["velo"], seed), seed).program for seed in range(300)]
    assert len(set(programs)) < 120
    common = sorted((programs.count(p) for p in set(programs)), reverse=True)
    assert sum(common[:16]) > 180


def same(one: Task, two: Task) -> bool:
    numbers = one.numbers.keys() == two.numbers.keys() and all(torch.equal(one.numbers[k], two.numbers[k]) for k in one.numbers)
    return one.program == two.program and hash(one.program) == hash(two.program) and numbers


def test_augment_is_pure_and_blind_to_order_and_probability() -> None:
    one = augment(digits(), ALL, 5)
    assert same(one, augment(digits(), ALL, 5))
    assert same(one, augment(digits(), ALL[::-1], 5))
    assert not same(one, augment(digits(), ALL, 6))
    assert same(augment(bowl(), [GradientNoise(0.0)], 1), augment(bowl(), ["gradient_noise"], 1))
    assert same(augment(bowl(), [], 1), bowl())
    layers, program = [], one.program
    while isinstance(program, Wrapper):
        layers.append(type(program).__name__)
        program = program.program
    assert layers == [
        "WithDelayedGradients", "WithNormalisedGradients", "WithGradientNoise", "WithRandomDirections", "Reparametrised",
        "WithEvolutionGradients", "InBfloat16", "WithReducedBatch",
    ]  # fmt: skip


class Named(Quadratic):
    step_scales = {"x": 0.25}  # noqa: RUF012
    embeddings = frozenset({"x"})


def test_what_a_program_says_of_its_parameters_by_name_is_passed_on() -> None:
    task = augment(replace(bowl(), program=Named(8, 4, "minimum")), FITTING["bowl"], 0)
    assert task.step_scales == {"x": 0.25}
    assert task.embeddings == {"x"}
    assert augment(bowl(), FITTING["bowl"], 0).step_scales == {}
    assert task.program.cap == Named(8, 4, "minimum").cap


def test_bad_calls_are_named() -> None:
    with pytest.raises(ConfigError, match="augmentation 'reduced_bach' is unknown; did you mean 'reduced_batch'"):
        augment(bowl(), ["reduced_bach"], 0)
    with pytest.raises(ConfigError, match="augmentation 'gradient_noise' is given twice"):
        augment(bowl(), ["gradient_noise", GradientNoise()], 0)
    with pytest.raises(TaskError, match="augmented by gradient_noise already"):
        augment(augment(bowl(), ["gradient_noise"], 0), ["gradient_noise"], 0)
    with pytest.raises(TaskError, match="reduced_batch needs batches"):
        augment(bowl(), ["reduced_batch"], 0)


@pytest.mark.parametrize("name", [*FITTING["bowl"], "all"])
def test_augmented_tasks_keep_the_contract(name: str) -> None:
    task = tasks.get("quadratic").build(tasks.get("quadratic").sample("10x1-none", 0, (50, 50)))
    names = [name] if name != "all" else [n for n in FITTING["bowl"] if n != "bfloat16"]
    skip = {"learnable"} | ({"stacks"} if name == "bfloat16" else set())  # a bfloat16 product of a batch rounds otherwise than one alone
    options = [Reparametrisation(level="element", scale=(0.5, 2.0)) if n == "reparametrisation" else n for n in names]
    check_task(augment(task, options, 0), skip=skip)


SMOOTH: tuple[Augmentation, ...] = (
    EvolutionGradients(std=(0.05, 0.05), pairs=(2, 2)),
    Reparametrisation(level="tensor", scale=(0.5, 2.0)),
    RandomDirections(directions=(3, 8)),
    GradientNoise(level=(0.2, 0.2)),
    AUGMENTATIONS["normalised_gradients"](),
    DelayedGradients(steps=(2, 2)),
)


@pytest.mark.parametrize("chosen", [*((a,) for a in SMOOTH), SMOOTH], ids=[*(a.name for a in SMOOTH), "together"])
@pytest.mark.parametrize("plain", [bowl(), digits()], ids=["bowl", "digits"])
def test_derivatives_of_a_run_are_right_through_every_augmentation(chosen: tuple[Augmentation, ...], plain: Task) -> None:
    """d(loss after a few steps) / d(step size), through the gradients that the steps were made of, against central differences."""
    task, learner, steps = augment(plain, chosen, 3), GradientLearner(get_rule("momentum")), 6

    def final(lr: torch.Tensor) -> torch.Tensor:
        return inner.run(learner, {"lr": lr}, [task], [1], steps).loss[-1, 0]

    lr, h = torch.tensor(0.02, dtype=torch.float64), 1e-6
    found = float(torch.func.grad(final)(lr))
    expected = float(final(lr + h) - final(lr - h)) / (2 * h)
    assert abs(expected) > 1e-6
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first forward derivative
@pytest.mark.parametrize("name", ALL)
def test_forward_derivatives_keep_single_precision(name: str) -> None:
    """Under vmap and jvp together, torch makes a double of a Python number times a number of a particle."""
    task = augment(digits(dtype=torch.float32), [name], 0)
    key = seeds.key("run")
    params, batch = task.init(key), task.batch(key, torch.tensor(0))

    def gradients(scale: torch.Tensor):
        moved, state = {k: v * scale for k, v in params.items()}, task.gradient_state(params)
        for _ in range(2):
            grads, loss, state = task.gradients(moved, batch, state)
        return grads, loss, state

    tangents = vmap(lambda s: torch.func.jvp(gradients, (s,), (torch.ones_like(s),))[1])(torch.tensor([1.0, 1.1]))
    assert {leaf.dtype for leaf in tree_leaves(tangents)} == {torch.float32}
    assert all(bool(torch.isfinite(leaf).all()) for leaf in tree_leaves(tangents))


def test_reduced_batches_and_half_precision_can_be_differentiated_too() -> None:
    learner = GradientLearner(get_rule("sgd"))
    for name, rel in (("reduced_batch", 1e-5), ("bfloat16", None)):
        task = augment(digits(dtype=torch.float32 if name == "bfloat16" else torch.float64), [name], 0)

        def final(lr: torch.Tensor, task: Task = task) -> torch.Tensor:
            return inner.run(learner, {"lr": lr}, [task], [1], 5).loss[-1, 0]

        lr = torch.tensor(0.05, dtype=task.horizon.dtype)
        found = float(torch.func.grad(final)(lr))
        if rel is None:  # differences of rounded losses say nothing; the derivative is about that in full precision
            plain = digits(dtype=torch.float32)
            exact = float(torch.func.grad(lambda x: inner.run(learner, {"lr": x}, [plain], [1], 5).loss[-1, 0])(lr))  # noqa: B023
            assert found == pytest.approx(exact, rel=0.1)
        else:
            assert found == pytest.approx(float(final(lr + 1e-6) - final(lr - 1e-6)) / 2e-6, rel=rel)


def test_the_guide_is_true() -> None:
    text = (Path(__file__).parents[3] / "docs" / "augmentations.md").read_text()
    rows = re.findall(r"^\| `(\w+)` ", text, re.MULTILINE)
    assert tuple(rows) == ALL
    names: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1), names)  # the guide's own code
    assert {"gradient_noise", "reduced_batch"} <= names["harder"].numbers.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", tasks.names())
def test_every_family_runs_under_every_augmentation_that_fits(name: str) -> None:
    family = tasks.get(name)
    template = next(t for split in tasks.SPLITS for t in family.templates(split))
    for kinds in ([kind] for kind in ALL):
        plain = family.build(family.sample(template, 0, (5, 5)))
        chosen = [AUGMENTATIONS[kind]() for kind in kinds if AUGMENTATIONS[kind]().fits(plain)]
        assert chosen or kinds == ["reduced_batch"] or hasattr(plain.program, "gradients")
        task = augment(plain, chosen, 0)
        losses = inner.run(learners.get("sgd", lr=1e-6), {}, [task, task], [0, 1], 3).loss
        assert bool(torch.isfinite(losses).all()), (name, kinds)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
def test_compiled_runs_are_eager_ones() -> None:
    names = [name for name in ALL if name != "bfloat16"]  # fused code rounds to bfloat16 in fewer places
    task = augment(digits(dtype=torch.float32), names, 2)
    learner = learners.get("sgd", lr=0.05)
    eager, compiled = (inner.run(learner, {}, [task, task], [0, 1], 12, eval_every=6, compile=c) for c in (False, True))
    torch.testing.assert_close(compiled.loss, eager.loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.eval_loss, eager.eval_loss, rtol=1e-4, atol=1e-5)
    assert not torch.equal(eager.loss[:, 0], eager.loss[:, 1])
    halved = augment(digits(dtype=torch.float32), ["bfloat16"], 2)
    eager, compiled = (inner.run(learner, {}, [halved], [seeds.stable_hash(1)], 12, compile=c) for c in (False, True))
    torch.testing.assert_close(compiled.loss, eager.loss, rtol=2e-2, atol=0)
