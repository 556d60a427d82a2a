"""Settings for all tests."""

import torch
from hypothesis import settings

# Machines that run tests are busy and shared: a slow example is no failure, and each test process has one core.
settings.register_profile("metaopt", deadline=None)
settings.load_profile("metaopt")
torch.set_num_threads(1)
