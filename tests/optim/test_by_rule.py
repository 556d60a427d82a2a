"""The classes that are named after published optimizers: their artifacts, and what they say without one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import metaopt
from metaopt.artifacts import Artifact, new_card
from metaopt.errors import ConfigError
from metaopt.learners import rule_of
from metaopt.optim import Celo, LearnedOptimizer, LSTMOptimizer, VeLO

SMALL: dict[str, dict[str, Any]] = {"velo": {"lstm_hidden": 4, "mixture": 3}, "celo": {"schedule_hidden": 4}, "lstm": {}}
CLASSES: dict[str, type[LearnedOptimizer]] = {"velo": VeLO, "celo": Celo, "lstm": LSTMOptimizer}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METAOPT_CACHE", str(tmp_path))
    return tmp_path


def artifact_of(rule: str) -> Artifact:
    return Artifact(new_card(f"my-{rule}", rule, options=SMALL[rule]), rule_of(rule, **SMALL[rule]).init_theta(0))


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(i))) for i, shape in enumerate(((3,), (3, 4)))]


def walk(optimizer: LearnedOptimizer, params: list[nn.Parameter]) -> None:
    for t in range(3):
        for param in params:
            param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(t))
        optimizer.step(loss=1.0 / (1 + t))


@pytest.mark.parametrize("rule", CLASSES)
def test_they_take_the_steps_of_the_general_class(rule: str, cache: Path) -> None:
    artifact = artifact_of(rule)
    path = artifact.save(cache / "artifacts" / "mine")
    runs = []
    for make, source in ((LearnedOptimizer, artifact), (CLASSES[rule], artifact), (CLASSES[rule], path), (CLASSES[rule], "mine")):
        params = parameters()
        walk(make(params, artifact=source, lr=0.5, total_steps=10, weight_decay=0.1), params)
        runs.append(params)
    assert not torch.equal(runs[0][0], parameters()[0])
    assert all(torch.equal(a, b) for params in runs[1:] for a, b in zip(runs[0], params, strict=True))
    assert getattr(metaopt.optim, CLASSES[rule].__name__) is CLASSES[rule]


@pytest.mark.parametrize(("rule", "other"), [("velo", "celo"), ("celo", "lstm"), ("lstm", "velo")])
def test_an_artifact_of_another_rule_is_refused(rule: str, other: str) -> None:
    name = CLASSES[rule].__name__
    with pytest.raises(ConfigError, match=f"artifact 'my-{other}' is of rule {other}, and {name} runs rule {rule}; use LearnedOptimizer"):
        CLASSES[rule](parameters(), artifact=artifact_of(other), total_steps=9)
    with pytest.raises(ConfigError, match=f"is of rule {other}, and {name} runs rule {rule}"):
        CLASSES[rule](parameters(), artifact=rule_of(other, **SMALL[other]), total_steps=9)


def test_without_an_artifact_velo_says_where_the_public_weights_are() -> None:
    with pytest.raises(ConfigError) as caught:
        VeLO(parameters(), total_steps=9)
    message = str(caught.value)
    assert message.startswith("VeLO needs artifact=: a path, a name or an Artifact of rule velo; no weights ship with metaopt")
    assert "gs://gresearch/learned_optimization/pretrained_lopts" in message
    assert "metaopt.artifacts.convert_jax(path, out)" in message
    assert "\n" not in message


def test_without_an_artifact_the_others_name_those_that_there_are(cache: Path) -> None:
    artifact_of("celo").save(cache / "artifacts" / "my-celo")
    with pytest.raises(ConfigError, match=r"Celo needs artifact=: a path, a name or an Artifact of rule celo; there are .*my-celo"):
        Celo(parameters(), total_steps=9)
    with pytest.raises(ConfigError, match="LSTMOptimizer needs artifact=: a path, a name or an Artifact of rule lstm") as caught:
        LSTMOptimizer(parameters())
    assert "my-celo" not in str(caught.value)


def test_what_the_rule_reads_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="total_steps is missing: my-velo@"):
        VeLO(parameters(), artifact=artifact_of("velo"))
    params = parameters()
    optimizer = Celo(params, artifact=artifact_of("celo"), total_steps=9)
    params[0].grad = torch.ones_like(params[0])
    with pytest.raises(ConfigError, match=r"step\(\) got no loss, which this rule reads"):
        optimizer.step()
