"""What families far from meta-training share: one contract, and compiled steps that do what plain ones do."""

import pytest
import torch

from metaopt import inner, learners, tasks
from metaopt.testing import check_family

FAR = ("modular_arithmetic", "matrix_completion", "neural_field", "physics_informed")


@pytest.mark.parametrize("name", FAR)
def test_every_template_keeps_the_contracts(name: str) -> None:
    skip = ("learnable",) if name == "modular_arithmetic" else ()  # its held-out loss falls long after 60 steps
    check_family(tasks.get(name), templates_per_split=4, skip=skip)


@pytest.mark.parametrize("name", FAR)
def test_no_template_is_trained_or_selected_on(name: str) -> None:
    family = tasks.get(name)
    assert family.templates("meta_train") == family.templates("meta_valid") == ()
    assert 2 <= len(family.templates("meta_test")) <= 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
@pytest.mark.parametrize("name", FAR)
def test_compiled_steps_equal_plain_ones(name: str) -> None:
    family = tasks.get(name)
    template = family.templates("meta_test")[-1]
    group = [family.build(family.sample(template, seed, (5, 5))) for seed in (0, 1)]
    plain, compiled = (inner.run(learners.get("adam", lr=1e-3), {}, group, [2, 3], 5, 5, compile=compile) for compile in (False, True))
    torch.testing.assert_close(compiled.loss, plain.loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.eval_loss, plain.eval_loss, rtol=1e-4, atol=1e-5)
