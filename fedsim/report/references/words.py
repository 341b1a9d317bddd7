"""Name the references of a run, and say that nothing protects them."""

from fedsim.results.run_directory import Run
from fedsim.scenario.kinds import Kind

UNPROTECTED = (
    "The models of scikit-learn (references) were trained on the very rows of all sites in one place, and of each "
    "site, without noise: nothing protects the records in them, and no epsilon covers their figures. They were asked "
    "for (references in the scenario), and are never trained otherwise."
)
_LINEAR = {"binary": "logistic regression", "classes": "logistic regression", "number": "ridge regression"}


def named(reference: str, learned_from: str, kind: Kind) -> str:
    """Return ``logistic regression, all sites``."""
    model = _LINEAR[kind] if reference == "linear" else "gradient boosting"
    return f"{model}, {learned_from}"


def references_of(run: Run) -> list[tuple[str, str]]:
    """Return each reference of a run and what it learned from; nothing where none was asked for."""
    table = run.measured.references
    if table.empty:
        return []
    return list(dict.fromkeys(zip(table["reference"], table["learned_from"], strict=True)))


def lacks_of(run: Run) -> list[str]:
    """Say where there is no model, or one that was trained otherwise, a line for each reason."""
    table = run.measured.references
    if table.empty:
        return []
    lines = []
    noted = table[table["note"] != ""]
    for (reference, learned_from, site, note), rows in noted.groupby(
        ["reference", "learned_from", "site", "note"], sort=False
    ):
        seeds = ", ".join(str(seed) for seed in rows["seed"])
        name = named(str(reference), str(learned_from), run.kind)
        lines.append(f"{name}, {site}, seed{'s' if len(rows) > 1 else ''} {seeds}: {note}")
    return lines
