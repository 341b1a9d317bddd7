"""A folder in the format of BERT-like models, with tiny random weights."""

import json
from pathlib import Path

import safetensors.torch
import torch

from clients.text import BertConfig, SentenceEncoder

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "king", "love", "##s", "and", ",", ".", "i", "you", "my", "lord"]
TINY = BertConfig(len(PIECES), 8, 2, 2, 12, 32)


def write_bert(folder: Path, seed: int = 0, config: BertConfig = TINY) -> Path:
    """Write config.json, tokenizer.json and model.safetensors; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config.__dict__, "architectures": ["BertModel"]}), "utf-8")
    tokenizer = {
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "model": {"type": "WordPiece", "vocab": {piece: number for number, piece in enumerate(PIECES)}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SentenceEncoder(config, 1)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("head")}
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    return folder
