"""Recurrent nets with an alphabet of answers: the net below is the one that it was."""

import pytest
import torch

from metaopt import seeds
from metaopt.tasks.models.recurrent import RecurrentNet
from metaopt.tasks.models.sequence_reader import SequenceReader

KEY, SCALE = seeds.key("model"), torch.tensor(1.5, dtype=torch.float64)
CELLS = ("rnn", "gru", "lstm")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_it_is_the_net_when_there_is_a_class_for_each_symbol(cell: str, layers: int) -> None:
    net = RecurrentNet(cell, 4, 5, 7, layers)
    params, own = SequenceReader(net, 4).init(KEY, SCALE), net.init(KEY, SCALE)
    assert params.keys() == own.keys()
    assert all(torch.equal(params[name], own[name]) for name in own)


@pytest.mark.parametrize("cell", CELLS)
def test_it_answers_in_classes_from_the_states_of_the_net(cell: str) -> None:
    net = RecurrentNet(cell, 4, 5, 7)
    reader = SequenceReader(net, 2)
    params = reader.init(KEY, SCALE)
    params["head.bias"] = torch.tensor([0.5, -0.25], dtype=torch.float64)
    assert params["head.weight"].shape == (2, 7)
    x = seeds.randint(seeds.key("x"), (3, 6), 4)
    states = net.run(params, "cell0", params["embed.weight"][x])
    torch.testing.assert_close(reader.apply(params, x), states @ params["head.weight"].T + params["head.bias"])


def test_the_output_layer_has_the_usual_size_and_the_embedding_is_named() -> None:
    reader = SequenceReader(RecurrentNet("gru", 2, 8, 400), 30)
    head = reader.init(KEY, SCALE)["head.weight"]
    assert float(head.std()) * 400**0.5 == pytest.approx(1.5, rel=0.05)
    assert reader.embeddings == {"embed.weight"}
