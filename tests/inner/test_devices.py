"""An inner run on an accelerator tells the same story as on the CPU: the randomness is the same, the arithmetic nearly."""

import pytest
import torch

from metaopt import inner, learners, tasks

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rule", ["adamw", "celo2_base", "mlp"])
def test_run_on_a_device_equals_the_run_on_the_cpu(device: str, rule: str) -> None:
    family = tasks.get("digits_mlp")
    learner = learners.get(rule, schedule="warmup_cosine")
    batch = [family.build(family.sample("16-tanh-b32", seed, (20, 20))) for seed in range(3)]
    theta = learner.init_theta(0)
    expected = inner.run(learner, theta, batch, [1, 2, 3], 20, eval_every=10)
    moved = inner.run(
        learner, {k: v.to(device) for k, v in theta.items()}, [task.to(device) for task in batch], [1, 2, 3], 20, eval_every=10
    )
    assert moved.loss.device.type == device
    torch.testing.assert_close(moved.loss.cpu(), expected.loss, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moved.eval_loss.cpu(), expected.eval_loss, rtol=1e-3, atol=1e-4)
