"""Update rules: hand-made and learned, one contract."""

from typing import Any

from metaopt.learners.update_rules import celo, celo2, classic, hierarchical_rnn, lstm, mlp, nn_adam, rnn_mlp, small_fc, star, velo
from metaopt.learners.update_rules.adafactor import Adafactor
from metaopt.learners.update_rules.celo import Celo
from metaopt.learners.update_rules.celo2 import Celo2, Celo2Base
from metaopt.learners.update_rules.classic import ClassicRule
from metaopt.learners.update_rules.hierarchical_rnn import HierarchicalRNN
from metaopt.learners.update_rules.learnable_adam import LearnableAdam
from metaopt.learners.update_rules.lion import Lion
from metaopt.learners.update_rules.lstm import LSTMRule
from metaopt.learners.update_rules.mlp import MLPRule
from metaopt.learners.update_rules.model_rule import ModelRule, ModelState, apply_model_rule, is_model_rule
from metaopt.learners.update_rules.muon import Muon
from metaopt.learners.update_rules.nn_adam import NNAdam
from metaopt.learners.update_rules.options import checked_options
from metaopt.learners.update_rules.radam import RAdam
from metaopt.learners.update_rules.rnn_mlp import RNNMLP
from metaopt.learners.update_rules.rule import State, Theta, UpdateRule, apply_rule, fresh_state, hyper
from metaopt.learners.update_rules.small_fc import SmallFC
from metaopt.learners.update_rules.star import Star
from metaopt.learners.update_rules.velo import VeLO
from metaopt.registry import Registry

__all__ = [
    "CLASSIC",
    "FEATURES",
    "MODEL_RULES",
    "RNNMLP",
    "RULES",
    "Celo",
    "Celo2",
    "Celo2Base",
    "ClassicRule",
    "HierarchicalRNN",
    "LSTMRule",
    "LearnableAdam",
    "MLPRule",
    "ModelRule",
    "ModelState",
    "NNAdam",
    "SmallFC",
    "Star",
    "State",
    "Theta",
    "UpdateRule",
    "VeLO",
    "apply_model_rule",
    "apply_rule",
    "fresh_state",
    "get_model_rule",
    "get_rule",
    "hyper",
    "is_model_rule",
]

# All hand-made rules: theta is empty unless a caller sweeps a hyperparameter.
CLASSIC: dict[str, type[ClassicRule]] = {**classic.CLASSIC, **{rule.name: rule for rule in (RAdam, Adafactor, Muon, Lion)}}

# Inputs of the rules that have a network, in order.
FEATURES: dict[str, tuple[str, ...]] = {
    "mlp": mlp.FEATURES,
    "small_fc": small_fc.FEATURES,
    "celo2_base": celo2.FEATURES,
    "celo2": celo2.FEATURES,
    "nn_adam": nn_adam.FEATURES,
    "star": star.FEATURES,
    "lstm": lstm.FEATURES["rnnprop"],
    "velo": velo.FEATURES,
    "celo": celo.FEATURES,
    "rnn_mlp": rnn_mlp.FEATURES,
    "hierarchical_rnn": hierarchical_rnn.FEATURES,
}

RULES: Registry[type[UpdateRule]] = Registry(
    "update rule",
    "metaopt.learners",
    {
        **CLASSIC,
        "mlp": MLPRule,
        "learnable_adam": LearnableAdam,
        "celo2_base": Celo2Base,
        "small_fc": SmallFC,
        "celo2": Celo2,
        "nn_adam": NNAdam,
        "star": Star,
        "lstm": LSTMRule,
    },
)

# Rules that see all tensors of a model together.
MODEL_RULES: Registry[type[ModelRule]] = Registry(
    "model rule",
    "metaopt.model_rules",
    {"velo": VeLO, "celo": Celo, "rnn_mlp": RNNMLP, "hierarchical_rnn": HierarchicalRNN},
)


def get_rule(name: str, **options: Any) -> UpdateRule:
    """Return an update rule by name with its options (a classic rule: its hyperparameters).

    Raises:
        ConfigError: no such rule, no such option, or a value that the option does not take.
    """
    rule = RULES[name]
    return rule(**checked_options(name, rule, options))


def get_model_rule(name: str, **options: Any) -> ModelRule:
    """Return a rule that sees all tensors by name, with its options.

    Raises:
        ConfigError: no such rule, no such option, or a value that the option does not take.
    """
    rule = MODEL_RULES[name]
    return rule(**checked_options(name, rule, options))
