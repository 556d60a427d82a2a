"""What each tensor of a public JAX checkpoint is called here: a table for each kind, complete both ways.

JAX keeps the weights of a layer as [in, out], ours are [out, in]. The weights of a haiku module lie under its name; `~` stands for the
function outside any module, and `linear`, `linear_1`, ... are numbered as the code makes them. Haiku's LSTM has one matrix for its inputs
and its hidden state, in this order, and gates i, g, f, o, as ours. Sizes in which checkpoints differ have a letter.

Source: the trees made by the releases of google/learned_optimization (`learned_optimizers/`, `research/general_lopt/hyper_v2.py`) and
amoudgl/celo (`celo/optimizers/`); those of Celo and Celo-Adam were compared with the checkpoints in that repository.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["TABLES", "Row", "Size", "Table"]

Size = int | str  # a number, a letter, or a sum of such: 39, "H", "4H", "52+H"


@dataclass(frozen=True)
class Row:
    """Where one of our tensors comes from.

    Attributes:
        name: ours.
        tensors: (path, shape) in the checkpoint; several are stacked along their input axis, the last but one.
        transposed: whether the last two axes change places.
        squeezed: whether a leading axis of one is dropped.
        part: rows [start, stop) of the input axis, "" for an end; applied first.
    """

    name: str
    tensors: tuple[tuple[str, tuple[Size, ...]], ...]
    transposed: bool = False
    squeezed: bool = False
    part: tuple[Size, Size] | None = None


@dataclass(frozen=True)
class Table:
    """The tensors of one kind of checkpoint.

    Attributes:
        rule: registry name of ours.
        rows: every tensor of ours. Each letter is somewhere a size by itself.
        options: of our rule, with letters for sizes.
        ignored: path -> shape of what the checkpoint has and no result depends on; `why` says so.
        why: see `ignored`.
    """

    rule: str
    rows: tuple[Row, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    ignored: Mapping[str, tuple[Size, ...]] = field(default_factory=dict)
    why: str = ""


def _same(name: str, path: str, *shape: Size) -> Row:
    return Row(name, ((path, shape),))


def _weight(name: str, path: str, *shape: Size) -> Row:
    return Row(name, ((path, shape),), transposed=True)


def _linear(name: str, path: str, inputs: Size, outputs: Size) -> tuple[Row, Row]:
    return _weight(f"{name}_weight", f"{path}/w", inputs, outputs), _same(f"{name}_bias", f"{path}/b", outputs)


def _network(path: str, inputs: Size, outputs: Size, parts: tuple[str, str, str]) -> tuple[Row, ...]:
    """Return rows for two hidden layers; `parts` are what the checkpoint appends to the path for weights and biases of each layer."""
    sizes = ((inputs, "A"), ("A", "B"), ("B", outputs))
    pairs = []
    for i, (layer, (fan_in, fan_out)) in enumerate(zip(parts, sizes, strict=True)):
        pairs += [_weight(f"w{i}", path + layer.format("w"), fan_in, fan_out), _same(f"b{i}", path + layer.format("b"), fan_out)]
    return tuple(pairs)


def _lstm(prefix: str, inputs: Size, both: Size) -> tuple[Row, ...]:
    weights = (("rnn_params/rnn/linear/w", (both, "4H")),)
    return (
        Row(f"{prefix}input_weight", weights, transposed=True, part=("", inputs)),
        Row(f"{prefix}hidden_weight", weights, transposed=True, part=(inputs, "")),
        _same(f"{prefix}gate_bias", "rnn_params/rnn/linear/b", "4H"),
        Row(f"{prefix}initial_hidden", (("lstm_init_state/hidden", (1, "H")),), squeezed=True),
        Row(f"{prefix}initial_cell", (("lstm_init_state/cell", (1, "H")),), squeezed=True),
    )


def _tensor_lstm(prefix: str, inputs: Size) -> tuple[Row, ...]:
    """Return rows for the LSTM of VeLO and Celo; of the three layers before it, the first one's output is thrown away."""
    pool, project = (_linear(f"{prefix}{name}", f"rnn_params/{path}", inputs, "H") for name, path in _POOL_AND_PROJECT)
    return (*pool, *project, *_lstm(prefix, "H", "2H"))


_POOL_AND_PROJECT = (("pool", "linear_1"), ("project", "linear_2"))
# Features of a weight in VeLO and Celo come in groups, each with its own rows of the first layer.
_GROUPS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)


def _bank(prefix: str, networks: Size, squeezed: bool) -> tuple[Row, ...]:
    stack = "ff_mod_stack/~"
    first = tuple((f"{stack}/w0__{i}", (networks, width, "A")) for i, width in enumerate(_GROUPS))
    return (
        Row(f"{prefix}w0", first, transposed=True, squeezed=squeezed),
        Row(f"{prefix}b0", ((f"{stack}/b0", (networks, "A")),), squeezed=squeezed),
        Row(f"{prefix}w1", ((f"{stack}/w1", (networks, "A", "A")),), transposed=True, squeezed=squeezed),
        Row(f"{prefix}b1", ((f"{stack}/b1", (networks, "A")),), squeezed=squeezed),
        Row(f"{prefix}w2", ((f"{stack}/w2", (networks, "A", 3)),), transposed=True, squeezed=squeezed),
        Row(f"{prefix}b2", ((f"{stack}/b2", (networks, 3)),), squeezed=squeezed),
    )


def _unheard(inputs: int) -> dict[str, tuple[Size, ...]]:
    return {"rnn_params/linear/w": (inputs, "H"), "rnn_params/linear/b": ("H",)}


_UNHEARD = "the output of the layer `linear` is overwritten before anything reads it"
_ALONE = "a softmax over the mixing coefficients of a single network is 1"

TABLES: dict[str, Table] = {
    "mlp": Table(
        "mlp",
        _network("mlp/~/", 19, 2, ("linear_0/{}", "linear_1/{}", "linear_2/{}")),
        options={"hidden": ("A", "B")},
    ),
    "small_fc": Table(
        "small_fc",
        (
            *_network("nn/~/", 39, 2, ("{}0", "{}1", "{}2")),
            _same("momentum_offset", "momentum_decays", 3),  # in the units of ours
            _same("second_offset", "rms_decays", 1),
            _same("factored_offset", "adafactor_decays", 3),
        ),
        options={"hidden": ("A", "B")},
    ),
    "rnn_mlp": Table(
        "rnn_mlp",
        (
            *_network("ffmod_params/mlp/~/", 54, 18, ("linear_0/{}", "linear_1/{}", "linear_2/{}")),
            *_lstm("", 52, "52+H"),
            *_linear("to_mlp", "rnn_to_ff_params/rnn_to_ff", "H", 17),
            *_linear("to_lstms", "rnn_to_in_params/rnn_to_in", "H", 18),
            _same("initial_from_mlp", "initial_from_mlp", 16),
            _same("initial_from_lstms", "initial_from_lstm", 18),
        ),
        options={"lstm_hidden": "H", "mlp_hidden": "A"},
    ),
    "velo": Table(
        "velo",
        (
            *_tensor_lstm("lstm_", 30),
            *_linear("mixture", "rnn_params/rnn_to_controls", "H", "J"),
            *_linear("rate", "rnn_params/step_size", "H", 1),
            *_bank("bank_", "J", squeezed=False),
        ),
        options={"lstm_hidden": "H", "mixture": "J", "mlp_hidden": "A"},
        ignored=_unheard(30),
        why=_UNHEARD,
    ),
    "celo": Table(
        "celo",
        (
            *_bank("rule_", 1, squeezed=True),
            *_tensor_lstm("schedule_", 18),
            *_linear("schedule_head", "rnn_params/step_size", "H", 1),
        ),
        options={"schedule_hidden": "H", "mlp_hidden": "A"},
        ignored={**_unheard(18), "rnn_params/rnn_to_controls/w": ("H", 1), "rnn_params/rnn_to_controls/b": (1,)},
        why=f"{_UNHEARD}; {_ALONE}",
    ),
    "celo_adam": Table(
        "celo",
        (*_tensor_lstm("schedule_", 18), *_linear("schedule_head", "rnn_params/step_size", "H", 1)),
        options={"direction": "adam", "schedule_hidden": "H"},
        ignored=_unheard(18),
        why=_UNHEARD,
    ),
}
