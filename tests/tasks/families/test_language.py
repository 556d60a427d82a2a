"""Character language models: what specs and programs say, that they learn more than the frequencies of characters, that they compile."""

import math

import pytest
import torch
from torch.nn import functional as F

from metaopt import inner, learners, seeds, tasks
from metaopt.tasks.families.supervised import Supervised
from metaopt.tasks.models import CELLS, RecurrentNet, Transformer
from metaopt.tasks.streams.text import Text, text_digest
from metaopt.tasks.task import Task

NAMES = ("text_rnn", "text_gru", "text_lstm", "text_transformer")
KINDS = {"text_rnn": {"rnn", "irnn"}, "text_gru": {"gru"}, "text_lstm": {"lstm"}}
compiler = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler


def task_of(name: str, template: str, seed: int = 0, horizon: int = 100):
    family = tasks.get(name)
    return family.build(family.sample(template, seed, (horizon, horizon)))


def templates(name: str) -> list[str]:
    return [template for split in tasks.SPLITS for template in tasks.get(name).templates(split)]


def smallest(name: str) -> str:
    """Return the template whose step is cheapest."""

    def cost(template: str) -> int:
        program = task_of(name, template).program
        return (
            program.stream.batch_size
            * program.stream.length
            * sum(value.numel() for value in task_of(name, template).init(seeds.key(0)).values())
        )

    return min(templates(name), key=cost)


@pytest.mark.parametrize("name", NAMES)
def test_templates_are_small_nets_of_their_kind(name: str) -> None:
    for template in templates(name):
        program = task_of(name, template).program
        assert isinstance(program.model, Transformer if name == "text_transformer" else RecurrentNet)
        assert name == "text_transformer" or program.model.cell in KINDS[name]
        assert 8 <= program.stream.length <= 32
        assert program.embeddings >= {"embed.weight"}
    if name == "text_rnn":
        assert {task_of(name, template).program.model.cell for template in templates(name)} == KINDS[name]


@pytest.mark.parametrize("name", NAMES)
def test_specs_carry_the_digest_of_the_text(name: str) -> None:
    family = tasks.get(name)
    spec = family.sample(templates(name)[0], 0, (10, 10))
    assert spec.values["text"] == text_digest()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_the_mean_over_all_characters_and_one_at_a_guess(name: str) -> None:
    task = task_of(name, smallest(name))
    key = seeds.key("run")
    params, batch = task.init(key), task.batch(key, torch.tensor(2))
    logits = task.program.model.apply(params, batch["x"])
    want = F.cross_entropy(logits.flatten(0, 1), batch["y"].flatten())
    torch.testing.assert_close(task.loss(params, batch), want)
    guess = {name: torch.zeros_like(value) for name, value in params.items()}
    assert float(task.loss(guess, batch)) == pytest.approx(math.log(64), rel=1e-5)
    assert float(task.normalise(task.loss(guess, batch))) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_training_finds_more_than_the_frequencies_of_characters(name: str) -> None:
    """The entropy of single characters is what a model without inputs can reach; it is 0.77 of a guess."""
    task = task_of(name, smallest(name), horizon=250)
    counts = torch.bincount(task.shared["train_text"], minlength=64).double() + 1e-9
    frequencies = (counts / counts.sum()).log()
    reached = -float(frequencies[task.heldout(seeds.key(0), torch.tensor(0))["y"]].mean())
    learner = learners.get("adam", lr=0.02, schedule="warmup_cosine")
    trace = inner.run(learner, {}, [task], [0], 250, eval_every=250)
    assert float(trace.eval_raw[-1, 0]) < 0.97 * reached < float(trace.eval_raw[0, 0])


TINY = [*(RecurrentNet(cell, 64, 8, 8) for cell in CELLS), Transformer(64, 4, 8, 2, 8, 1)]


@pytest.mark.slow
@compiler
@pytest.mark.parametrize("model", TINY, ids=[*CELLS, "transformer"])
def test_compiled_steps_equal_eager_ones(model) -> None:
    """The length of a sequence multiplies the time to compile and changes nothing else: four characters are enough."""
    program = Supervised(Text(4, 4), model)
    numbers = {"init_scale": 1.0, "reference": math.log(64), "floor": 2.0, "horizon": 5.0}
    task = Task(program, {name: torch.tensor(value) for name, value in numbers.items()}, program.shared())
    learner = learners.get("sgd", lr=0.1)
    eager, compiled = (inner.run(learner, {}, [task, task], [0, 1], 5, compile=compile) for compile in (False, True))
    torch.testing.assert_close(compiled.loss, eager.loss, rtol=1e-4, atol=1e-5)
    assert (eager.loss[-1] != eager.loss[0]).all()
