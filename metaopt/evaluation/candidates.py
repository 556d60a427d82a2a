"""Who is evaluated: artifacts, baselines by name, and presets that nobody has meta-trained.

| written | means |
|---|---|
| path, bundled or cached name, `Artifact` | the artifact at lr = 1, with its card's default or learned schedule over the task's horizon |
| the same, of a policy | AdamW from its defaults, with 64 decisions of the policy behind guard rails; no evaluation loss, no registers |
| `RULE@start`, `RULE@random` | a learnable rule without weights: hand-set or random start; warm-up and cosine unless it reads T |
| `BASELINE`, `BASELINE@RATE` | a baseline at its default rate, or at the given one; its usual schedule |
| `BASELINE+SCHEDULE` | a baseline under another schedule |
| `BASELINE@lr=RATE,NAME=VALUE` | a baseline with hyperparameters of its search |
| `NAME=PATH,PATH,...` | artifacts of several meta-trainings of one method: one line of the report, with these as its meta-seeds |
"""

import difflib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metaopt import artifacts, baselines, learners
from metaopt.artifacts import Artifact
from metaopt.artifacts.policy import is_policy, load_policy
from metaopt.artifacts.schedule import is_schedule, learned_schedule
from metaopt.errors import ConfigError
from metaopt.learners import SCHEDULES, GradientLearner, Learner, Schedule, learner_of, rule_of
from metaopt.learners.policies.network import PolicySpec
from metaopt.learners.policies.policy_learner import PolicyLearner
from metaopt.learners.policies.starts import inner_start
from metaopt.learners.update_rules import MODEL_RULES, is_model_rule
from metaopt.names import nearest

__all__ = ["Candidate", "LearnerLike", "resolve"]

_STARTS = {"start": "adam", "random": "random"}


@dataclass(frozen=True)
class Candidate:
    """A learner ready to be evaluated; callers may make their own.

    Attributes:
        name: unique in a report, together with `meta_seed`.
        learner: the pair (init, advance); hashable and picklable.
        theta: its meta-parameters.
        card: of the artifact it comes from, else None.
        kind: of learner, which decides on which tasks it can run (`suites.kinds_of`).
        meta_seed: which of several meta-trainings of one method this is, >= 0; they share the name, and are one line of a report.
        planning_horizon: inner steps that it was trained, or looks, ahead, >= 1; None: what the card says.
        method: what reports call it together with those that differ from it in the planning horizon; empty: its definition decides.

    Raises:
        ConfigError: planning_horizon < 1.
    """

    name: str
    learner: Learner
    theta: Mapping[str, Tensor]
    card: Mapping[str, Any] | None = None
    kind: str = "update_rule"
    meta_seed: int = 0
    planning_horizon: int | None = None
    method: str = ""

    def __post_init__(self) -> None:
        if self.planning_horizon is not None and self.planning_horizon < 1:
            raise ConfigError(f"candidate {self.name!r}: planning_horizon must be >= 1 inner step, got {self.planning_horizon}")

    @property
    def hash(self) -> str:
        """Sixteen hex digits of the learner's definition and meta-parameters."""
        digest = hashlib.blake2b(self.definition.encode(), digest_size=8)
        for name, value in sorted(self.theta.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def definition(self) -> str:
        """The learner without its meta-parameters, as text: rule, options and schedule."""
        if not isinstance(self.learner, GradientLearner):
            return repr(self.learner)
        rule = self.learner.rule
        options = {
            key: value for key, value in sorted(vars(rule).items()) if isinstance(value, bool | int | float | str | dict | list | tuple)
        }
        kind = "" if type(self.learner) is GradientLearner else repr(self.learner)
        return repr((type(rule).__name__, options, self.learner.schedule, self.learner.weight_decay, kind))


LearnerLike = str | os.PathLike[str] | Artifact | Candidate


def resolve(wanted: LearnerLike | Sequence[LearnerLike]) -> list[Candidate]:
    """Return the candidates that these names, paths and artifacts stand for; a name that is there twice gets a number.

    Raises:
        ConfigError: nothing to evaluate, an unknown name, start or rate.
        UnsafeArtifactError: an artifact that does not load.
    """
    entries = [wanted] if isinstance(wanted, str | os.PathLike | Artifact | Candidate) else list(wanted)
    if not entries:
        raise ConfigError("learners must name at least one artifact, baseline or preset, got none")
    candidates: list[Candidate] = []
    for entry in entries:
        runs = _meta_seeds(entry)
        twins = len({one.name for one in candidates if one.name.split("#")[0] == runs[0].name and one.meta_seed == runs[0].meta_seed})
        candidates += [replace(run, name=f"{run.name}#{twins + 1}") if twins else run for run in runs]
    return candidates


def _meta_seeds(entry: LearnerLike) -> list[Candidate]:
    """Return the meta-trainings that an entry names: mostly one."""
    text = entry if isinstance(entry, str) else ""
    name, equals, paths = text.partition("=")
    if not equals or "@" in name or os.path.lexists(text):
        return [_one(entry)]
    chosen = [path.strip() for path in paths.split(",") if path.strip()]
    if not name or not chosen:
        raise ConfigError(f"learner {text!r}: NAME=PATH,PATH,... needs a name and at least one artifact")
    runs = [_from_artifact(artifacts.load(path)) for path in chosen]
    rules = sorted({run.card["rule"]["name"] for run in runs if run.card})
    if len(rules) > 1:
        raise ConfigError(f"learner {name!r}: the meta-seeds of one method share a rule, got {' and '.join(rules)}")
    if len({run.hash for run in runs}) < len(runs):
        raise ConfigError(f"learner {name!r}: the same artifact is there twice; meta-seeds must be separate meta-trainings")
    return [replace(run, name=name, meta_seed=i) for i, run in enumerate(runs)]


def _one(entry: LearnerLike) -> Candidate:
    if isinstance(entry, Candidate):
        return entry
    if isinstance(entry, Artifact):
        return _from_artifact(entry)
    text = os.fspath(entry)
    name, _, option = text.partition("@")
    if os.path.lexists(text):
        return _from_artifact(artifacts.load(entry))
    if name.split("+")[0] in baselines.names():
        return _from_baseline(text, name, option)
    if option and name in learners.names():
        return _from_preset(text, name, option)
    if "@" in text:
        raise ConfigError(
            f"learner {text!r}: {name!r} is neither a rule nor a baseline{nearest(name, (*learners.names(), *baselines.names()))}"
        )
    known = [row["name"] for row in artifacts.list_artifacts()]
    if text not in known and difflib.get_close_matches(text, baselines.names(), n=1):
        raise ConfigError(f"learner {text!r} is no path, artifact or baseline{nearest(text, (*known, *baselines.names()))}")
    return _from_artifact(artifacts.load(entry))


def _from_artifact(artifact: Artifact) -> Candidate:
    card = artifact.card
    if card["kind"] != "update_rule" and not is_schedule(artifact) and not is_policy(artifact):
        known = "update_rule, schedules and policies"
        raise ConfigError(f"artifact {artifact.name!r} is of kind {card['kind']!r}; only {known} can be evaluated")
    if card["training"]["outer_steps"] and "horizon" not in card["training"]["support"]:
        raise ConfigError(
            f"artifact {artifact.name!r}: its card tells of meta-training but not on which horizon; save it again with"
            " training.support.horizon = [fewest, most] inner steps"
        )
    if is_schedule(artifact):
        learner, theta = learned_schedule(artifact)
        return Candidate(artifact.name, learner, theta, card, kind=card["kind"])
    if is_policy(artifact):
        return _from_policy(artifact)
    given = card["step"]["default_schedule"]
    schedule = Schedule(**given) if given else SCHEDULES["constant"]
    theta = dict(artifact.weights)
    if card["step"]["base_lr"] != 1.0:
        theta["lr"] = torch.tensor(float(card["step"]["base_lr"]))
    return Candidate(artifact.name, learner_of(rule_of(card["rule"]["name"], **card["rule"]["options"]), schedule), theta, card)


def _from_policy(artifact: Artifact) -> Candidate:
    """A policy runs from its optimizer's default start, within the guard rails that `PolicyScheduler` has by default."""
    from metaopt.optim.policy_scheduler_guard import rate_limits

    network = load_policy(artifact)
    assert isinstance(network.spec, PolicySpec)
    inner = "adamw" if "adamw" in network.spec.inner else network.spec.inner[0]
    lowest, highest = rate_limits(True, float(inner_start(inner)[0]), artifact.card["limits"].get("max_lr"))
    learner = PolicyLearner(network.spec, inner, lowest=lowest, highest=highest)
    return Candidate(artifact.name, learner, dict(network.state_dict()), artifact.card, kind=artifact.card["kind"])


def _from_preset(text: str, name: str, option: str) -> Candidate:
    if option not in _STARTS:
        raise ConfigError(f"learner {text!r}: after '@' {name} takes {' or '.join(_STARTS)}, got {option!r}")
    plain = option == "start" and name in MODEL_RULES  # begins as its options say
    rule = rule_of(name) if plain else rule_of(name, start=_STARTS[option])
    own = is_model_rule(rule) and rule.needs_horizon
    learner = learner_of(rule, SCHEDULES["constant" if own else baselines.SCHEDULE])
    return Candidate(text, learner, learner.init_theta(0))


def _from_baseline(text: str, name: str, option: str) -> Candidate:
    baseline = baselines.get(name)
    if "=" in option:
        theta = {key: torch.tensor(value) for key, value in baseline.parse(option).values}
        return Candidate(text, baseline.learner(), theta)
    rate = baseline.parse(option).rate
    return Candidate(f"{name}@{rate:g}", baseline.learner(), {"lr": torch.tensor(rate)})
