"""The artifact of a run: theta and a card that says where it comes from."""

from pathlib import Path
from typing import Any

from metaopt.artifacts import Artifact, new_card
from metaopt.config import Config
from metaopt.learners.update_rules import FEATURES, Theta
from metaopt.outer.shards import shard_sources
from metaopt.outer.validation import Change

__all__ = ["export"]

_HASHED_EPISODES = 8  # of each shard's first pair; episodes are endless, these let a contamination check find the template


def _support(config: Config) -> dict[str, list[Any]]:
    """Return what meta-training met: families, templates, horizons and re-parametrisations."""
    sources = shard_sources(config)
    support: dict[str, list[Any]] = {
        "family": sorted({source.family.name for source in sources}),
        "template": sorted({f"{source.family.name}/{source.template}" for source in sources}),
        "horizon": [min(entry.horizon[0] for entry in config.tasks), max(entry.horizon[1] for entry in config.tasks)],
    }
    if config.augmentations.reparametrisation is not None:
        support["reparametrisation"] = list(config.augmentations.reparametrisation)
    return support


def export(config: Config, theta: Theta, change: Change, inner_steps: int, device_hours: float, path: Path) -> None:
    """Write the artifact of a finished run to `path`.

    Raises:
        UnsafeArtifactError: `path` holds something else.
    """
    options = config.learner.options
    schedule = {"warmup_frac": config.artifact.warmup_frac, "final_frac": config.artifact.final_lr_frac}
    hashes = {
        source.family.sample(source.template, seed, source.horizon).hash
        for source in shard_sources(config)
        for seed in (source.draw(0, episode) for episode in range(_HASHED_EPISODES))
    }
    scores = []
    if change.difference == change.difference:  # nan where no family has meta_valid templates
        scores.append(
            {"suite": "meta_valid", "metric": "meta_loss_change", "value": change.difference, "low": change.low, "high": change.high}
        )
    card = new_card(
        config.artifact_name,
        config.learner.rule,
        options={name: value for name, value in options.items() if name not in ("schedule", "weight_decay")},
        features=list(FEATURES.get(config.learner.rule, ())),
        step={"default_schedule": schedule},
        training={
            "config_hash": config.hash,
            "distribution": [entry.model_dump(mode="json") for entry in config.tasks],
            "task_hashes": sorted(hashes),
            "seeds": [config.seed],
            "outer_steps": config.outer.steps,
            "inner_steps": inner_steps,
            "device_hours": device_hours,
            "support": _support(config),
        },
        scores=scores,
    )
    Artifact(card, theta).save(path)
