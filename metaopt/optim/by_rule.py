"""`LearnedOptimizer` by the name of a published learned optimizer: its artifact must be of that optimizer's rule."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from metaopt.artifacts import Artifact, list_artifacts, load
from metaopt.artifacts.artifact import CARD
from metaopt.errors import ConfigError
from metaopt.learners.update_rules import ModelRule, UpdateRule
from metaopt.optim.learned import LearnedOptimizer

__all__ = ["Celo", "LSTMOptimizer", "VeLO"]

Named = str | os.PathLike[str] | Artifact | UpdateRule | ModelRule


class _ByRule(LearnedOptimizer):
    """A `LearnedOptimizer` that takes artifacts of one rule; arguments, methods and errors are those of the base class.

    Raises:
        ConfigError: no artifact, or one of another rule.
    """

    rule: ClassVar[str]
    advice: ClassVar[str] = ""

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        artifact: Named | None = None,
        lr: float | Tensor = 1.0,
        total_steps: int | None = None,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        if artifact is None:
            raise ConfigError(f"{type(self).__name__} needs artifact=: a path, a name or an Artifact of rule {self.rule}{self._offers()}")
        if isinstance(artifact, str | os.PathLike):
            artifact = load(artifact)
        rule = artifact.card["rule"]["name"] if isinstance(artifact, Artifact) else artifact.name
        if rule != self.rule:
            raise ConfigError(
                f"artifact {artifact.name!r} is of rule {rule}, and {type(self).__name__} runs rule {self.rule}; use LearnedOptimizer"
            )
        super().__init__(params, artifact, lr, total_steps, weight_decay, maximize=maximize, compile=compile)

    @classmethod
    def _offers(cls) -> str:
        """Return what messages add about artifacts that there are."""
        cards = {row["name"]: json.loads((Path(row["path"]) / CARD).read_text("utf-8")) for row in list_artifacts()}
        names = [name for name, card in cards.items() if card["kind"] == "update_rule" and card["rule"]["name"] == cls.rule]
        return f"; there are {', '.join(names)}" if names else cls.advice


class LSTMOptimizer(_ByRule):
    """A coordinate-wise LSTM (rule `lstm`): one small recurrent network that reads the gradient of each weight and returns its step.

    Raises:
        ConfigError: no artifact, or one of another rule.

    Source: Andrychowicz et al., 2016, "Learning to learn by gradient descent by gradient descent".
    """

    rule = "lstm"


class VeLO(_ByRule):
    """VeLO (rule `velo`): an LSTM for each tensor mixes the weights of a small network, which makes the steps of the tensor's weights.

    Needs `total_steps`, and the loss at each step: `step(loss=loss)` or `step(closure)`. No weights are shipped.

    Raises:
        ConfigError: no artifact, or one of another rule.

    Source: Metz et al., 2022, "VeLO: Training Versatile Learned Optimizers by Scaling Up".
    """

    rule = "velo"
    advice = (
        "; no weights ship with metaopt: those of Google's learned_optimization project are in"
        " gs://gresearch/learned_optimization/pretrained_lopts, and metaopt.artifacts.convert_jax(path, out) converts a downloaded one"
    )


class Celo(_ByRule):
    """Celo (rule `celo`): one small network makes the steps, and a learned schedule, which reads the loss and the time left, scales them.

    Needs `total_steps`, and the loss at each step: `step(loss=loss)` or `step(closure)`.

    Raises:
        ConfigError: no artifact, or one of another rule.

    Source: Moudgil et al., 2025, "Celo: training versatile learned optimizers on a compute diet".
    """

    rule = "celo"
