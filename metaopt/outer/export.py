"""The artifact of a run: theta and a card that says where it comes from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaopt.artifacts import Artifact, new_card
from metaopt.config import Config
from metaopt.config.learner import ScheduleConfig
from metaopt.learners import rule_of
from metaopt.learners.hypergradients.schedule import INTERFACE
from metaopt.learners.update_rules import FEATURES, Theta, is_model_rule
from metaopt.outer.selection import Selection
from metaopt.outer.shards import shard_sources
from metaopt.outer.validation import Change
from metaopt.tasks.support import number_support, template_support

__all__ = ["Chosen", "export"]

_HASHED_EPISODES = 8  # of each shard's first pair; episodes are endless, these let a contamination check find the template


@dataclass(frozen=True)
class Chosen:
    """What validation chose: after how many outer steps, the last theta or the average, and its mean loss with the 95 % normal interval.

    The loss is that of the particles which chose it, so that it is too low on average; `Change` is measured on others.
    """

    step: int
    kind: str
    loss: float
    low: float
    high: float

    @staticmethod
    def of(selection: Selection) -> "Chosen | None":
        """Return what a selection chose, None if nothing."""
        return Chosen(selection.best_step, selection.best_kind, *selection.score) if selection.best_theta else None


def _support(config: Config) -> dict[str, list[Any]]:
    """Return what meta-training met, axis by axis: see `metaopt.tasks.support`."""
    sources = shard_sources(config)
    met = [horizon for source in sources for horizon in (source.stages or (source.horizon,))]
    met += [horizon for phase in config.outer.phases[1:] if (horizon := phase.horizon)]
    later = [source for phase in range(1, len(config.outer.phases)) for source in shard_sources(config, phase)]
    return {
        **(template_support({f"{source.family.name}/{source.template}" for source in sources}) or {}),
        "horizon": [min(low for low, _ in met), max(high for _, high in met)],
        **number_support(source.chosen for source in (*sources, *later)),
    }


def _planning(config: Config, longest: int) -> dict[str, int]:
    """Return how many inner steps a meta-gradient saw, where they are fewer than the longest horizon."""
    recipe = config.outer.estimator.recipe
    return {"planning_horizon": recipe.window} if getattr(recipe, "truncated", False) and recipe.window < longest else {}


def _learner_fields(config: Config) -> dict[str, Any]:
    """Return what the card says about the learner, besides its rule.

    The values of a learned schedule are absolute: its `base_lr` is 1, and it needs no default schedule but the length of the run. A rule
    that reads the length of the run needs none either.
    """
    section = config.learner
    if isinstance(section, ScheduleConfig):
        return {
            "kind": "hypergradient",
            "interface": INTERFACE,
            "options": section.options,
            "step": {"base_lr": 1.0, "default_schedule": None},
            "limits": {"needs_total_steps": True},
        }
    options = {name: value for name, value in section.options.items() if name not in ("schedule", "weight_decay")}
    rule = rule_of(section.rule, **options)
    needs = {"needs_loss": rule.needs_loss, "needs_total_steps": rule.needs_horizon} if is_model_rule(rule) else {}
    schedule = {"warmup_frac": config.artifact.warmup_frac, "final_frac": config.artifact.final_lr_frac}
    return {
        "options": options,
        "features": list(getattr(rule, "features", FEATURES.get(section.rule, ()))),
        "step": {"default_schedule": None if needs.get("needs_total_steps") else schedule},
        "limits": needs,
    }


def export(
    config: Config,
    theta: Theta,
    change: Change,
    outer_steps: int,
    inner_steps: int,
    device_hours: float,
    path: Path,
    chosen: Chosen | None = None,
) -> None:
    """Write the artifact of a finished run to `path`; `outer_steps` and `inner_steps` are those that the run made.

    Raises:
        UnsafeArtifactError: `path` holds something else.
    """
    hashes = {
        source.family.sample(source.template, seed, source.stages[0] if source.stages else source.horizon).hash
        for source in shard_sources(config)
        for seed in (source.draw(0, episode) for episode in range(_HASHED_EPISODES))
    }
    scores: list[dict[str, Any]] = []
    if change.difference == change.difference:  # nan where no family has meta_valid templates
        scores.append(
            {"suite": "meta_valid", "metric": "meta_loss_change", "value": change.difference, "low": change.low, "high": change.high}
        )
    if chosen is not None and config.validation is not None:
        scores.append(
            {
                "suite": "meta_valid",
                "metric": f"{config.validation.objective}_loss_of_selection",
                "value": chosen.loss,
                "low": chosen.low,
                "high": chosen.high,
                "outer_step": chosen.step,
                "theta": chosen.kind,
                "note": "the lowest of all validations, hence flattered; meta_loss_change is measured on other particles",
            }
        )
    card = new_card(
        config.artifact_name,
        config.learner.rule,
        **_learner_fields(config),
        training={
            "config_hash": config.hash,
            "distribution": [entry.model_dump(mode="json") for entry in config.tasks],
            "task_hashes": sorted(hashes),
            "seeds": [config.seed],
            "outer_steps": outer_steps,
            "inner_steps": inner_steps,
            "device_hours": device_hours,
            "support": (support := _support(config)),
            **_planning(config, support["horizon"][1]),
        },
        scores=scores,
    )
    Artifact(card, theta).save(path)
