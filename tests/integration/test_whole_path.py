"""The whole path from Python: meta-train, keep, load, plug into PyTorch, evaluate."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import metaopt
from metaopt.tasks.data.digits import DIGITS
from metaopt.tasks.streams import Examples

TINY = {
    "outer.steps": 3,
    "outer.shard_particles": 2,
    "tasks": [{"family": "digits_mlp", "shards": 1, "horizon": [25, 40]}],
}


def digits_accuracy_after(optimizer_of, steps: int) -> tuple[float, float]:
    """Train 64-32-10 on digits and return the held-out accuracy before and after."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    data = Examples(DIGITS, (1, 8, 8), 64).shared()
    optimizer = optimizer_of(model.parameters())

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(data["heldout_x"]).argmax(-1) == data["heldout_y"]).float().mean())

    before = accuracy()
    for _ in range(steps):
        rows = torch.randint(0, len(data["train_y"]), (64,))
        optimizer.zero_grad()
        F.cross_entropy(model(data["train_x"][rows]), data["train_y"][rows]).backward()
        optimizer.step()
    return before, accuracy()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    return metaopt.train("quickstart", overrides=TINY, seed=5, run_dir=tmp_path_factory.mktemp("path") / "run")


def test_train_returns_metrics_and_an_artifact(run) -> None:
    assert run.metrics["step"].tolist() == [1, 2, 3]
    assert metaopt.load(str(run.artifact)).card["training"]["seeds"] == [5]
    assert run.change is not None
    assert run.change.before > run.change.after > 0  # three steps from the hand-set start already help


@pytest.mark.parametrize("name", ["celo2-base", "learnable-adam"])
def test_shipped_artifacts_train_a_model(name: str) -> None:
    before, after = digits_accuracy_after(lambda params: metaopt.optim.LearnedOptimizer(params, artifact=name, total_steps=100), 100)
    assert before < 0.3
    assert after > 0.85


def test_the_run_s_own_artifact_trains_a_model(run) -> None:
    artifact = str(run.artifact)
    before, after = digits_accuracy_after(lambda params: metaopt.optim.LearnedOptimizer(params, artifact=artifact, total_steps=100), 100)
    assert after > 0.85 > before


@pytest.mark.slow
def test_evaluate_reports_both_beside_the_baselines(run, tmp_path: Path) -> None:
    report = metaopt.evaluate([run.artifact, "celo2-base"], suite="quick", baselines="sgd", seeds=1, out=tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {"report.json", "report.md", "report.html", "rows.jsonl", "figures"}
    assert (tmp_path / "report" / "figures" / "headline.png").is_file()
    names = set(report.summary["learner"])
    assert {"quickstart", "celo2-base", "sgd"} <= names
    ours = report.summary[report.summary["learner"].isin(["quickstart", "celo2-base"])]
    assert (ours["failures"] == 0).all()
