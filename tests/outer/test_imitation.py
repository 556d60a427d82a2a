"""A config with a phase that imitates: what it says, what is refused, and a run from end to end."""

import json
from pathlib import Path

import pytest

from metaopt import api, artifacts, learners
from metaopt.config import load_config
from metaopt.errors import ConfigError
from metaopt.learners.imitation import ImitationLearner
from metaopt.outer.shards import ShardSetup, ShardWork, shard_sources
from tests.outer.test_phases import phases

FIRST = "{imitate: {rule: adam, lr: 1e-2, schedule: warmup_cosine}, horizon: [25, 50]}"
CONFIG = """
name: tiny
learner: {rule: lstm, hidden: 2, layers: 1}
tasks: [{family: quadratic, shards: 2, horizon: [20, 30]}]
outer:
  steps: 8
  shard_particles: 1
  estimator: {name: truncated_backprop, window: 10}
  optimizer: {name: adam, lr: 3e-2}
  phases:
    - {share: 3, imitate: {rule: adam, lr: 3e-2}, horizon: [20, 20]}
    - {share: 1, lr: 1e-3}
"""


def loaded(*sections: str):
    return load_config("quickstart", [f"outer.phases=[{', '.join(sections)}]", "outer.steps=20"])


def test_a_phase_says_what_it_imitates() -> None:
    first, second = loaded(FIRST, "{}").outer.phases
    assert second.imitate is None
    assert first.imitate.build() == learners.get("adam", lr=1e-2, schedule="warmup_cosine")
    assert len(phases(FIRST, "{}")) == 2


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{rule: adm}", r"imitate\.rule must be one of sgd, .*, got 'adm'; did you mean adam\?"),
        ("{rule: lstm}", r"imitate\.rule must be one of sgd, "),
        ("{rule: adam, lr: -1.0}", r"imitate\.lr must be >= 0, got -1\.0"),
        ("{lr: 1e-2}", r"imitate\.rule is missing"),
        ("adam", r"imitate must be a mapping"),
    ],
)
def test_what_cannot_be_imitated_is_refused_with_its_place(section: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^outer\.phases\.0\.{message}"):
        loaded(f"{{imitate: {section}}}")


def test_a_hyperparameter_that_the_rule_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^unknown key outer\.phases\.0\.imitate\.rate; allowed: rule, schedule, lr, beta1, "):
        loaded("{imitate: {rule: adam, rate: 1.0}}")


def test_only_the_phase_that_imitates_takes_losses_as_they_are() -> None:
    config = loaded(FIRST, "{}")
    names = [[augmentation.name for augmentation in shard_sources(config, phase)[0].chosen] for phase in (0, 1)]
    assert names == [["plain_loss"], []]


def test_workers_imitate_in_that_phase_and_not_after_it() -> None:
    worker = ShardSetup(loaded(FIRST, "{}")).build()
    kinds = []
    for phase in (0, 1, 0):
        worker._enter(ShardWork(None, None, phase=phase))
        kinds.append(type(worker._trained))
    assert kinds == [ImitationLearner, learners.GradientLearner, ImitationLearner]


def test_a_run_that_imitates_first_and_then_trains_itself(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    run = api.train(str(path), run_dir=tmp_path / "run", workers=0)
    losses = [json.loads(line)["loss"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 8
    assert losses[5] < losses[0]  # closer to Adam
    assert artifacts.load(run.artifact).card["rule"]["name"] == "lstm"  # exported as any update rule
