"""Find the classes of images: declared, or found in the names of folders or in a column."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsim.data.own_table.images.folder import CLASS, SITE, Listing
from fedsim.data.own_table.ranges import Declared, declared_for, declares
from fedsim.data.own_table.target import AFFIRMATIVE
from fedsim.data.own_table.values import fold
from fedsim.scenario.schema import Data

_NOTHING_MISSING: Mapping[str, Any] = {"missing": []}  # a folder may be called none or NA


def declared_in_folder(
    listing: Listing,
    classes: Sequence[str | int] | None,
) -> tuple[Declared, tuple[str, ...]]:
    """Return the classes of a folder's images as the entry of their column, and notes.

    Args:
        listing: The images of the folder.
        classes: The declared classes; None to find them.
    """
    if classes is None:
        names = found_classes(listing.classes)
        positive = f"; {names[1]} is positive" if len(names) == 2 else ""
        notes = (f"classes were found in the names of the folders: {', '.join(names)}{positive}",)
    else:
        names = [str(name) for name in classes]
        notes = ()
    several = {} if len(names) < 2 else {"levels": names}  # of one class the outcome itself says it
    entries = {CLASS: {**_NOTHING_MISSING, **several}, SITE: {**_NOTHING_MISSING}}
    return Declared(entries, "data.classes", fits_rest=classes is None), notes


def found_classes(names: Sequence[str]) -> list[str]:
    """Sort distinct classes, those that differ in case being one; a yes comes after a no."""
    distinct: dict[str, str] = {}
    for name in sorted(set(names)):
        distinct.setdefault(fold(name), name)
    classes = list(distinct.values())
    if len(classes) == 2 and fold(classes[0]) in AFFIRMATIVE and fold(classes[1]) not in AFFIRMATIVE:
        classes.reverse()
    return classes


def declared_beside_images(data: Data) -> Declared:
    """Return the declared levels or range of the outcome of a table that lists images.

    Without ``classes`` or ``ranges`` the outcome is taken from the rows, which the schema allows
    only where nothing is promised to them.
    """
    declared = declared_for(Path(data.path or ""), data.ranges, data.undeclared)
    entries = dict(declared.entries)
    name = data.target or ""
    if data.classes is not None:
        entry = entries.get(name)
        options = entry if isinstance(entry, dict) and not declares(entry) else {}
        entries[name] = {**options, "levels": list(data.classes)}
    is_open = data.ranges is None and not declares(entries.get(name))
    return Declared(entries, declared.place, declared.fits_rest or is_open)
