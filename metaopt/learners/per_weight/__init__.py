"""Per-weight networks: every weight is a small recurrent machine, and all of them share their meta-parameters."""

from metaopt.learners.per_weight.cell import CellSpec, LSTMCell, init_cell_theta
from metaopt.learners.per_weight.edge import Cell
from metaopt.learners.per_weight.network import NetworkSpec, NetworkState, fresh_state, learn, predict, present, stack_layers, with_examples

__all__ = [
    "Cell",
    "CellSpec",
    "LSTMCell",
    "NetworkSpec",
    "NetworkState",
    "fresh_state",
    "init_cell_theta",
    "learn",
    "predict",
    "present",
    "stack_layers",
    "with_examples",
]
