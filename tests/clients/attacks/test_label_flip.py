import torch

from clients.attacks.label_flip import LabelFlip
from fedsim.data.federation import Examples
from fedsim.randomness import stream


def test_flipped_labels_are_turned_around():
    rows = Examples(torch.zeros(4, 2), torch.tensor([0, 1, 2, 9]))
    assert LabelFlip().poison(rows, 10, stream(0, "poison")).target.tolist() == [9, 8, 7, 0]
    rows = Examples(torch.zeros(2, 2), torch.tensor([0.0, 1.0]))
    assert LabelFlip().poison(rows, 2, stream(0, "poison")).target.tolist() == [1.0, 0.0]
