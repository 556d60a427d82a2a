"""What a report says of its learners."""

from metaopt import learners
from metaopt.evaluation.candidates import resolve
from metaopt.evaluation.provenance import rule_name


def test_a_learner_is_called_by_its_own_name_before_that_of_a_rule_in_it():
    named = {one.name: rule_name(one.learner) for one in resolve(["adamw", "sgd_momentum", "dog", "hypergradient_adamw", "lbfgs"])}
    assert list(named.values()) == ["adamw", "momentum", "dog", "hypergradient_adamw", "lbfgs"]
    assert rule_name(learners.get("celo2_base")) == "celo2_base"


def test_a_learner_without_any_name_is_called_by_its_class():
    class Nameless:
        pass

    assert rule_name(Nameless()) == "Nameless"
