"""Autoencoders of images: losses against torch's distributions, noise from the batch, references computed from the data."""

import math

import pytest
import torch
from torch import distributions

from metaopt import inner, learners, seeds, tasks
from metaopt.tasks.families.autoencoders import NegativeELBO, Reconstruction, pixel_loss

DIGITS = ("digits_autoencoder", "digits_log_autoencoder", "digits_vae")
compiler = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler


def task_of(name: str, template: str, seed: int = 0, horizon: int = 100, dtype: torch.dtype = torch.float32):
    family = tasks.get(name)
    return family.build(family.sample(template, seed, (horizon, horizon))).to(dtype=dtype)


def templates(name: str) -> list[str]:
    return [template for split in tasks.SPLITS for template in tasks.get(name).templates(split)]


def test_losses_of_pixels_are_those_of_torchs_distributions() -> None:
    outputs, pixels = seeds.normal(seeds.key("o"), (4, 9), torch.float64), seeds.uniform(seeds.key("p"), (4, 9), torch.float64)
    want = -(pixels * outputs.sigmoid().log() + (1 - pixels) * (-outputs).sigmoid().log()).mean()
    torch.testing.assert_close(pixel_loss(outputs, pixels, True), want)
    torch.testing.assert_close(pixel_loss(outputs, pixels, False), ((outputs - pixels) ** 2).mean())
    black = pixels.round()
    torch.testing.assert_close(pixel_loss(outputs, black, True), -distributions.Bernoulli(logits=outputs).log_prob(black).mean())


@pytest.mark.parametrize("template", templates("digits_vae")[:3])
def test_the_negative_elbo_is_reconstruction_plus_divergence_a_pixel(template: str) -> None:
    task = task_of("digits_vae", template, dtype=torch.float64)
    key = seeds.key("run")
    params, batch = task.init(key), task.batch(key, torch.tensor(1))
    params = {name: value + 0.1 * seeds.normal(seeds.key(name), value.shape, torch.float64) for name, value in params.items()}
    outputs, mean, log_variance = task.program.model.apply(params, batch["x"], batch["noise"])
    posterior = distributions.Normal(mean, (log_variance / 2).exp())
    divergence = distributions.kl_divergence(posterior, distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(-1)
    likelihood = distributions.Normal(outputs, 0.1**0.5).log_prob(batch["x"]).sum(-1)
    constant = 0.5 * math.log(2 * math.pi * 0.1)
    torch.testing.assert_close(task.loss(params, batch), (divergence - likelihood).mean() / 64 - constant, rtol=1e-9, atol=0)


def test_noise_is_part_of_the_batch_and_fixed_where_held_out() -> None:
    task = task_of("digits_vae", templates("digits_vae")[0])
    z, key = task.program.model.code, seeds.key("run")
    draws = torch.stack([task.batch(key, torch.tensor(t))["noise"] for t in range(100)])
    assert draws.shape[-1] == z
    assert float(draws.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(draws.std()) == pytest.approx(1.0, abs=0.05)
    assert len({row.numpy().tobytes() for row in draws.flatten(0, 1)}) == draws.flatten(0, 1).shape[0]
    one, two = task.heldout(key, torch.tensor(0)), task.heldout(seeds.key("other"), torch.tensor(9))
    assert all(torch.equal(one[name], two[name]) for name in ("x", "noise"))
    assert one["noise"].shape == (256, z)


@pytest.mark.parametrize("name", DIGITS)
def test_references_are_the_loss_of_the_trivial_predictor(name: str) -> None:
    task = task_of(name, templates(name)[0])
    params = {key: torch.zeros_like(value) for key, value in task.init(seeds.key("run")).items()}
    everything = {"x": task.shared["train_x"]}
    if isinstance(task.program, NegativeELBO):
        everything["noise"] = torch.zeros(len(everything["x"]), task.program.model.code)
    raw = task.loss(params, everything)
    want = {"digits_autoencoder": 1.0, "digits_log_autoencoder": math.log(2), "digits_vae": 5.0}[name]
    assert float(raw) == pytest.approx(want, rel=1e-4)
    assert float(task.normalise(raw)) == pytest.approx(1.0, rel=1e-4)
    assert float(task.normalise(task.numbers["floor"])) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_autoencoder", "digits_log_autoencoder", "digits_vae", "faces_autoencoder"])
def test_a_narrow_code_holds_more_than_the_mean_image(name: str) -> None:
    template = min(templates(name), key=lambda template: task_of(name, template).program.stream.batch_size)
    task = task_of(name, template, horizon=200)
    learner = learners.get("adam", lr=0.01, schedule="warmup_cosine")
    trace = inner.run(learner, {}, [task], [0], 200, eval_every=200)
    x = task.heldout(seeds.key(0), torch.tensor(0))["x"]
    mean = task.shared["train_x"].mean(0)
    if name == "digits_log_autoencoder":
        best = torch.nn.functional.binary_cross_entropy(mean.expand_as(x), x)
    else:
        best = (x - mean).square().mean() / (0.2 if name == "digits_vae" else 1.0)
    assert float(trace.eval_raw[-1, 0]) < 0.99 * float(best)


@pytest.mark.parametrize("name", [*DIGITS, "faces_autoencoder"])
def test_templates_are_small_nets_of_their_kind(name: str) -> None:
    for template in templates(name):
        task = task_of(name, template)
        assert isinstance(task.program, NegativeELBO if name == "digits_vae" else Reconstruction)
        assert task.program.model.code <= 16
        assert task.program.stream.features <= 14 * 14
        assert sum(value.numel() for value in task.init(seeds.key(0)).values()) < 40_000


def shallowest(name: str) -> str:
    return min(templates(name), key=lambda template: len(task_of(name, template).init(seeds.key(0))))


@pytest.mark.slow
@compiler
@pytest.mark.parametrize("name", ["digits_autoencoder", "digits_vae"])
def test_compiled_steps_equal_eager_ones(name: str) -> None:
    group, learner = [task_of(name, shallowest(name), seed) for seed in range(2)], learners.get("sgd", lr=0.1)
    eager, compiled = (inner.run(learner, {}, group, [0, 1], 5, compile=compile) for compile in (False, True))
    torch.testing.assert_close(compiled.loss, eager.loss, rtol=1e-4, atol=1e-5)
