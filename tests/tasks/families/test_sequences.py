"""Parity and binary addition: what templates are, what a guess and the right answers score, that tuned AdamW leaves chance far behind."""

import math
from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from metaopt import inner, learners, seeds, tasks
from metaopt.tasks.streams.bits import Addition, Parity
from metaopt.tasks.support import task_axes
from metaopt.tasks.task import Task
from metaopt.testing import check_family

NAMES = ("xor", "binary_addition")
STREAM = {"xor": Parity, "binary_addition": Addition}
SHORTEST = {"xor": 12, "binary_addition": 8}
TEMPLATES = [(name, template) for name in NAMES for split in tasks.SPLITS for template in tasks.get(name).templates(split)]
KEY, T0 = seeds.key("run"), torch.tensor(0)

each_family = pytest.mark.parametrize("name", NAMES)


def task_of(name: str, template: str, seed: int = 0, horizon: int = 100) -> Task:
    family = tasks.get(name)
    return family.build(family.sample(template, seed, (horizon, horizon)))


def first(name: str) -> str:
    return tasks.get(name).templates("meta_train")[0]


@each_family
def test_every_split_has_templates_and_training_has_every_cell(name: str) -> None:
    family = tasks.get(name)
    assert [len(family.templates(split)) for split in tasks.SPLITS] == [8, 2, 3]
    assert {template.split("-")[0] for template in family.templates("meta_train")} == {"rnn", "gru", "lstm"}
    assert family.offers == ("stream", "model")


@pytest.mark.parametrize(("name", "template"), TEMPLATES)
def test_templates_are_nets_of_their_name_on_their_stream(name: str, template: str) -> None:
    task = task_of(name, template)
    stream, net = task.program.stream, task.program.model.net
    assert isinstance(stream, STREAM[name])
    spelt = f"{net.cell}-hidden{net.hidden}-layers{net.layers}-length{stream.length}-batch{stream.batch_size}"
    assert spelt == template
    assert 16 <= net.hidden <= 128
    assert SHORTEST[name] <= stream.length <= 24
    assert len(task.shared["heldout_x"]) == 128
    assert task.program.embeddings == {"embed.weight"}


@each_family
def test_axes_name_the_cell_and_the_stream(name: str) -> None:
    family = tasks.get(name)
    axes = task_axes(family.sample(first(name), 0, (9, 9)))
    assert (axes["data"], axes["architecture"]) == (STREAM[name].__name__.lower(), first(name).split("-")[0])
    shifted = family.sample(first(name), 0, (9, 9))
    wider = tasks.build(tasks.shift(shifted, "width", 2))
    assert wider.program.model.net.hidden == 2 * tasks.build(shifted).program.model.net.hidden


@each_family
def test_first_templates_keep_both_contracts(name: str) -> None:
    check_family(tasks.get(name), skip=("learnable",))  # by more than it asks for in the test below


@each_family
def test_a_guess_has_loss_one_and_the_right_answers_zero(name: str) -> None:
    task = task_of(name, first(name))
    batch = task.heldout(KEY, T0)
    guess = {name: torch.zeros_like(value) for name, value in task.init(KEY).items()}
    assert float(task.loss(guess, batch)) == pytest.approx(math.log(2), rel=1e-6)
    assert float(task.normalise(task.loss(guess, batch))) == pytest.approx(1.0, rel=1e-6)
    assert float(task.normalise(torch.tensor(0.0))) == 0.0


@each_family
def test_the_loss_is_the_mean_over_all_positions(name: str) -> None:
    task = task_of(name, first(name))
    params, batch = task.init(KEY), task.batch(KEY, T0)
    logits = task.program.model.apply(params, batch["x"])
    assert logits.shape == (*batch["y"].shape, 2)
    torch.testing.assert_close(task.loss(params, batch), F.cross_entropy(logits.flatten(0, 1), batch["y"].flatten()))


def by_hand(name: str, params: dict[str, torch.Tensor], sure: float = 20.0) -> dict[str, torch.Tensor]:
    """Return weights of a tanh net that are right everywhere: units that tell whether the ones here and the one kept reach a count.

    For parity the unit of 1 less that of 2 is what is kept and the answer. For addition the unit of 2 is the carry, next to a unit that is
    always on, and 1 - 2 + 3 is the digit.
    """
    solved = {name: torch.zeros_like(value) for name, value in params.items()}
    counts, kept = ((1, 2), (0.5, -0.5)) if name == "xor" else ((1, 2, 3), (0.0, 0.5, 0.0, 0.5))
    solved["embed.weight"][:, 0] = torch.tensor([0.0, 1.0] if name == "xor" else [0.0, 1.0, 1.0, 2.0])
    for unit, count in enumerate(counts):
        solved["cell0.weight_ih"][unit, 0] = sure
        solved["cell0.weight_hh"][unit, : len(kept)] = sure * torch.tensor(kept)
        solved["cell0.bias"][unit] = -sure * (count - 0.5)
        solved["head.weight"][1, unit] = sure * (-1) ** unit
    if name == "xor":
        solved["head.bias"][1] = -sure
    else:
        solved["cell0.bias"][3] = sure
    return solved


@pytest.mark.parametrize(
    ("name", "template"),
    [("xor", "rnn-hidden16-layers1-length12-batch24"), ("binary_addition", "rnn-hidden48-layers1-length8-batch32")],
)
def test_a_net_by_hand_has_loss_zero(name: str, template: str) -> None:
    """The floor is within reach of a handful of tanh units, whatever the length."""
    task = task_of(name, template)
    params = by_hand(name, task.init(KEY))
    for batch in (task.batch(KEY, T0), task.heldout(KEY, T0), STREAM[name](64, 32).batch({}, KEY, T0)):
        assert float(task.normalise(task.loss(params, batch))) < 1e-3


@each_family
def test_answers_need_what_came_before(name: str) -> None:
    """The symbol at a position alone says nothing about the parity, and about a digit only that carries are rarer at the start."""
    stream = STREAM[name](1, 7)
    examples = stream.examples(torch.arange(1 << stream.bits))
    for i in range(1, 6):
        for symbol in range(stream.symbols):
            answers = Counter(examples["y"][examples["x"][:, i] == symbol, i].tolist())
            share = answers[1] / sum(answers.values())
            assert share == 0.5 if name == "xor" else abs(share - 0.5) < 0.26


@each_family
def test_a_task_is_a_function_of_its_spec(name: str) -> None:
    spec = tasks.get(name).sample(first(name), 3, (10, 500))
    assert set(spec.values) == {"init_scale"}
    assert 0.5 <= spec.values["init_scale"] < 1.5
    assert spec.hash == {"xor": "75859aca362912f0", "binary_addition": "97a41dbab0b4a8d9"}[name]


@pytest.mark.parametrize(
    ("name", "template"),
    [("xor", "rnn-hidden16-layers1-length12-batch24"), ("binary_addition", "lstm-hidden24-layers1-length8-batch16")],
)
def test_adamw_at_a_good_rate_is_far_below_chance_on_every_seed(name: str, template: str) -> None:
    group = [task_of(name, template, seed, 200) for seed in range(8)]
    trace = inner.run(learners.get("adamw", lr=0.03), {}, group, range(8), 200, 200)
    assert not trace.diverged.any()
    assert float(trace.eval_loss[0].min()) > 0.9
    assert float(trace.eval_loss[-1].max()) < 0.5
    assert float(trace.eval_loss[-1].mean()) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "template"), TEMPLATES)
def test_every_template_is_solved_at_the_best_of_three_rates(name: str, template: str) -> None:
    group = [task_of(name, template, seed, 400) for seed in range(2)]
    theta = {"lr": torch.tensor((3e-3, 1e-2, 3e-2)).repeat_interleave(2)}
    learner = learners.get("adamw", schedule="warmup_cosine")
    trace = inner.run(learner, theta, group * 3, [*range(2)] * 3, 400, 400, theta_stacked=True)
    assert float(trace.eval_loss[-1].reshape(3, 2).mean(1).min()) < 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
@each_family
def test_compiled_steps_equal_eager_ones(name: str) -> None:
    """At the shortest length: it multiplies the time to compile and changes nothing else."""
    template = min((one for family, one in TEMPLATES if family == name), key=lambda one: int(one.split("length")[1].split("-")[0]))
    group = [task_of(name, template, seed, 5) for seed in (0, 1)]
    eager, compiled = (inner.run(learners.get("sgd", lr=0.1), {}, group, [0, 1], 5, compile=compile) for compile in (False, True))
    torch.testing.assert_close(compiled.loss, eager.loss, rtol=1e-4, atol=1e-5)
    assert (eager.loss[-1] != eager.loss[0]).all()
