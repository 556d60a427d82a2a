"""What the rest of the package may not pull in."""

import subprocess
import sys

HEAVY = ("gymnasium", "stable_baselines3", "metaopt_envs", "matplotlib")
LIGHT = ("metaopt", "metaopt.evaluation.candidates", "metaopt.learners.policies.policy_learner")


def test_environments_stay_out_of_other_evaluations():
    code = f"import sys, {', '.join(LIGHT)}; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
