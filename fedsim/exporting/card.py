"""Write a model card as Markdown, from the facts of a model."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

from fedsim import figures
from fedsim.data.tables import Levels
from fedsim.exporting.inputs import Inputs
from fedsim.exporting.preprocessing import described
from fedsim.report.statement import grouped

_ARMS = {
    "federated": "at all sites together, which kept their rows (federated)",
    "centralized": "on the pooled rows of all sites (centralized)",
    "local": "at one site alone (local)",
}
_KINDS = {"binary": "a yes or no", "classes": "one of several classes", "number": "a number"}
_OUTPUTS = {
    "binary": "`probability`, float32 (rows,)",
    "classes": "`class`, text (rows,), and `probabilities`, float32 (rows, classes)",
    "number": "`prediction`, float64 (rows,)",
}


_SESSION = """import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
"""
_EXAMPLES = {
    "table": f"""import pandas
{_SESSION}
table = pandas.read_csv("table.csv")
inputs = {{}}
for each in session.get_inputs():
    values = table[each.name]
    is_text = each.type == "tensor(string)"
    inputs[each.name] = values.fillna("").to_numpy(object) if is_text else values.to_numpy("float64")
outputs = session.run(None, inputs)""",
    "windows": f"""{_SESSION}
inputs = {{name: arrays[name] for name in ({{names}})}}  # float64 (rows, {{length}}), see below
outputs = session.run(None, inputs)""",
    "images": f"""{_SESSION}
outputs = session.run(None, {{"image": images}})  # uint8, see below""",
    "encoded": f"""{_SESSION}
outputs = session.run(None, {{"inputs": inputs}})  # float32, see below""",
}


def card(facts: Mapping[str, Any]) -> str:
    """Return the card."""
    parts = [
        f"# {_text(facts['title'])}",
        _in_short(facts),
        *_purpose(facts),
        *_use(facts),
        *_inputs(facts),
        *_data(facts),
        *_figures(facts),
        *_groups(facts),
        *_privacy(facts),
        "## Limits",
        "\n".join(f"- {_text(limit)}" for limit in facts["limits"]),
        "## Files",
        "`model.onnx` is the model with its preprocessing, `model.safetensors` its bare parameters, `model.json` the "
        "facts of this card as JSON. `SHA256SUMS` holds their digests: `sha256sum --check SHA256SUMS`.",
    ]
    return "\n\n".join(parts) + "\n"


def _text(text: str) -> str:
    """Return a text that Markdown takes for text: names may be anybody's."""
    escaped = "".join(f"\\{each}" if each in "\\`*_[]<>|#" else each for each in text)
    return " ".join(escaped.split())


def _in_short(facts: Mapping[str, Any]) -> str:
    privacy = facts["privacy"]
    if not privacy["guarantee"]:
        return "**This model was trained without privacy. It has no privacy guarantee.**"
    spent = privacy["epsilon"].values()
    most = f"at most {figures.epsilon(max(spent))}" if spent else "0, since nothing was released"
    lines = [
        f"Trained under differential privacy, unit {privacy['unit']}: epsilon {most}, delta "
        f"{figures.setting(privacy['delta'])}. What that covers, and what it does not, is under Privacy below."
    ]
    if privacy["random"] != "secure":
        lines.append(
            "**Against somebody who knows the seed there is no guarantee, and this card prints it**: train the model "
            'that is handed on with `privacy.rng = "secure"`.'
        )
    return "\n\n".join(lines)


def _purpose(facts: Mapping[str, Any]) -> Iterator[str]:
    outcome = facts["outcome"]
    training = facts["training"]
    model = facts["model"]
    yield "## What it is for"
    unit = f" ({_text(outcome['unit'])})" if outcome["unit"] else ""
    lines = [f"- Predicts: {_text(outcome['meaning'])}{unit}; {_KINDS[outcome['kind']]}"]
    if outcome["classes"]:
        lines.append(f"- Classes: {', '.join(map(_text, outcome['classes']))}")
    layers = ", ".join(model["layers"])
    lines.append(f"- Model: {layers}; {model['parameters']:,} parameters")
    if "adapted" in model:
        lines.append(f"- Fine-tuned: {_fine_tuned(model['adapted'])}")
    site = f", at {_text(training['site'])}" if training["site"] else ""
    strategy = f", strategy {_text(training['strategy'])}" if training["strategy"] else ""
    rounds = "1 round" if training["rounds"] == 1 else f"{training['rounds']} rounds"
    lines.append(f"- Trained: {_ARMS[training['arm']]}{site}{strategy}, {rounds}, "
                 f"seed {training['seed']}")  # fmt: skip
    run = facts["run"]
    lines.append(f"- From: run {_text(run['name'])} ({_text(run['scenario'])}), started {_text(run['started'])}; "
                 f"its ledger.json has the SHA-256 {run['files']['ledger.json'][:16]}...")  # fmt: skip
    yield "\n".join(lines)


def _fine_tuned(adapted: Mapping[str, Any]) -> str:
    """Say what of a model was trained, and on which weights it stands."""
    trained = f"{adapted['trained']:,} parameters were trained"
    modules = ", ".join(map(_text, adapted["modules"]))
    if adapted["method"] == "lora":
        what = f"low-rank adapters (LoRA, rank {adapted['rank']}) beside {modules}, merged into the weights here"
    else:
        what = modules or "the last layer"
    if adapted["also"]:
        what += f"; {', '.join(map(_text, adapted['also']))} whole"
    base = adapted["base"]
    stands = "frozen random weights that the seed gives"
    if base:
        stands = f"the frozen weights of {_text(base['file'])}, SHA-256 {base['sha256']}"
    return f"{trained}: {what}. The rest is {stands}, and no promise of privacy is made for it"


def _use(facts: Mapping[str, Any]) -> Iterator[str]:
    kind = facts["inputs"]["kind"]
    yield "## Use"
    if kind != "encoded":
        rows = "table.csv" if kind == "table" else "images/"
        yield f"```text\nfedsim predict . {rows} --to predictions.csv\n```"
    yield f"With plain onnxruntime, the outputs are {_OUTPUTS[facts['outcome']['kind']]}:"
    windows = facts["inputs"]["windows"]
    example = _EXAMPLES["windows" if windows else kind]
    if windows:
        names = ", ".join(f'"{each["name"]}"' for each in facts["inputs"]["columns"])
        example = example.replace("{names}", names).replace("{length}", str(windows["length"]))
    yield f"```python\n{example}\n```"
    difference = facts["agreement"]["largest_difference"]
    yield f"The largest difference to PyTorch was {difference:.1e} when it was written."


def _inputs(facts: Mapping[str, Any]) -> Iterator[str]:
    inputs = Inputs.of_json(facts["inputs"])
    yield "## Inputs"
    if inputs.kind == "images":
        yield f"`image`: uint8 (rows, {', '.join(map(str, inputs.shape))}), brightness 0 to 255."
        return
    if inputs.kind == "encoded":
        yield (
            f"`inputs`: float32 (rows, {', '.join(map(str, inputs.shape))}), encoded as the task does it. The task "
            "does not say how a file's columns become these inputs, so that is not part of the model."
        )
        return

    if inputs.windows:
        windows = inputs.windows
        yield (
            f"Each input has the latest {windows.length} rows of one `{windows.by}`, in the order of "
            f"`{windows.order}`: float64 (rows, {windows.length}). `fedsim predict` cuts a table into them."
        )
    else:
        yield "An array (rows,) for each column: numbers as float64, NaN where missing; text, empty where missing."
    lines = ["| column | type | values |", "|---|---|---|"]
    for column in inputs.columns:
        kind = "category" if isinstance(column.column, Levels) else "number"
        if column.is_date:
            kind = f"date, as days since {_day(column.origin)}"
        lines.append(f"| {_text(column.name)} | {kind} | {_text(described(column.column))} |")
    yield "\n".join(lines)


def _day(days: float) -> str:
    return (date(1970, 1, 1) + timedelta(days=days)).isoformat()


def _data(facts: Mapping[str, Any]) -> Iterator[str]:
    data = facts["data"]
    yield "## Data"
    lines = [f"- Source: {_text(data['source'])}"]
    if data["licence"]:
        lines.append(f"- Licence: {_text(data['licence'])}")
    lines.append(f"- Sites: {data['sites']}")
    if data["rows"] is not None:
        lines.append(f"- Rows, of which a part is for training: {data['rows']:,}")
    yield "\n".join(lines)


def _figures(facts: Mapping[str, Any]) -> Iterator[str]:
    stated = facts["figures"]
    yield "## Figures"
    seeds = stated["seeds"]
    over = "one seed" if seeds == 1 else f"{seeds} seeds"
    yield f"On test rows; means over {over}, with intervals of {_text(stated['interval'])}."
    lines = ["| figure | where | mean | interval | without a model |", "|---|---|---|---|---|"]
    for row in stated["rows"]:
        unit = f" ({_text(row['unit'])})" if row["unit"] else ""
        base = figures.UNKNOWN if row["without_a_model"] is None else figures.figure(row["without_a_model"])
        interval = row["interval"] or figures.UNKNOWN
        lines.append(f"| {row['metric']}{unit} | {_text(row['place'])} | {row['text']} | {interval} | {base} |")
    yield "\n".join(lines)


def _groups(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## Groups"
    if not facts["groups"]:
        yield "No group was compared."
        return
    yield "How groups of test rows are treated, and how that differs from everyone else."
    lines = ["| group | rate | mean | interval | to others | interval |", "|---|---|---|---|---|---|"]
    for row in facts["groups"]:
        group = f"{_text(row['attribute'])}: {_text(row['group'])}" + (" (few rows)" if row["few"] else "")
        interval = row["interval"] or figures.UNKNOWN
        apart = row["difference_interval"] or figures.UNKNOWN
        lines.append(f"| {group} | {row['rate']} | {row['text']} | {interval} | {row['difference_text']} | {apart} |")
    yield "\n".join(lines)


def _privacy(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## Privacy"
    lines = []
    for term, definitions in grouped([(term, text) for term, text in facts["privacy"]["statement"]]):
        lines.extend(f"- **{_text(term)}**: {_text(definition)}" for definition in definitions)
    yield "\n".join(lines)
