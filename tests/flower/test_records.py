import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import nn

from fedsim.flower.records import Flat, Layout, flatten, stacked, unflatten, vector_in


def a_record() -> tuple[nn.Module, torch.Tensor, Flat]:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1, bias=False))
    vector = torch.arange(10.0)
    return model, vector, Flat(vector, Layout.of(model))


def test_a_flat_record_is_an_ordinary_one_to_flower():
    """Its bytes are those Flower would have made, and what came of them is an ordinary record with the same values."""
    model, vector, record = a_record()
    nn.utils.vector_to_parameters(vector.clone(), model.parameters())
    plain = ArrayRecord(model.state_dict())
    assert list(record) == list(plain)
    for name, array in record.items():
        assert (array.dtype, array.shape, array.stype, array.data) == (
            plain[name].dtype, plain[name].shape, plain[name].stype, plain[name].data,
        )  # fmt: skip
        assert array.object_id == plain[name].object_id
    assert record.object_id == plain.object_id
    assert record.count_bytes() == plain.count_bytes()
    for one, other in zip(record.to_numpy_ndarrays(), plain.to_numpy_ndarrays(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_array_is_encoded_only_when_its_bytes_are_asked_for():
    _, vector, record = a_record()
    assert "data" not in record["0.weight"].__dict__
    record["0.weight"].numpy()[:] = 7.0  # a copy, as Flower's own is
    assert vector.max() == 9


def test_a_record_that_was_changed_is_no_vector_any_more():
    _, _, record = a_record()
    copied = record.copy()
    record["0.bias"] = Array(np.full(2, 5.0, np.float32))
    assert vector_in(record) is None
    assert flatten(record).tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 8, 9]
    assert flatten(copied).tolist() == list(range(10))
    del copied["0.bias"]
    assert vector_in(copied) is None


def test_to_a_vector_and_back():
    model, vector, record = a_record()
    plain = ArrayRecord(model.state_dict())
    assert torch.equal(flatten(unflatten(vector, plain)), vector)
    assert flatten(unflatten(vector, record)) is vector


def test_rows_of_a_matrix_are_stacked_without_a_copy():
    matrix = torch.randn(5, 4)
    assert stacked([*matrix[1:4]]).data_ptr() == matrix[1].data_ptr()
    for rows in ([matrix[0], matrix[2]], [matrix[1], matrix[0]], [torch.zeros(4), matrix[0]]):
        found = stacked(rows)
        assert torch.equal(found, torch.stack(rows))
        found.zero_()
    assert matrix.abs().min() > 0
