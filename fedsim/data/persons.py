"""Who is who: the persons of rows, by number, and what is kept together because of them.

A person is the rows with one name at one natural site. Names are not compared between sites: two hospitals may both
have a patient 17, and if these were taken for one, leaving out the rows of either would move a clipped sum by up to
twice the clip.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedsim.data.task import Rows


@dataclass(frozen=True)
class Persons:
    """The persons of a scenario's rows, counted.

    Attributes:
        rows: How many rows there are.
        of_sites: {site: how many persons have rows there}.
        most_rows: The most rows that one person has at one site.
        at_several_sites: How many names are at more than one site.
    """

    rows: int
    of_sites: Mapping[str, int]
    most_rows: int
    at_several_sites: int

    @property
    def said(self) -> str:
        """The same in a sentence."""
        persons = sum(self.of_sites.values())
        return (
            f"{self.rows:,} rows of {persons:,} persons, those of each site counted for themselves; the most rows of "
            f"one person at a site: {self.most_rows}; names that are at several sites: {self.at_several_sites:,}"
        )

    @property
    def caution(self) -> str:
        """The warning that a promise for one row is none for a person with several."""
        return (
            f"The guarantee is for one row and not for a person: a person here has up to {self.most_rows} rows at a "
            f"site, and up to {self.most_rows} times the epsilon of one row, at a much larger delta. The privacy unit "
            "person protects all of them."
        )


def numbered(names: np.ndarray) -> np.ndarray:
    """Number persons from 0 on in the order in which they first appear, int64 (rows,).

    Args:
        names: Their names or other numbers, (rows,).
    """
    _, first_rows, inverse = np.unique(names, return_index=True, return_inverse=True)
    number_of = np.empty(len(first_rows), np.int64)
    number_of[np.argsort(first_rows)] = np.arange(len(first_rows))
    return number_of[inverse]


def numbers_of(rows: Rows) -> np.ndarray | None:
    """Return the number of each row's person, int64 (rows,): the same for one name at one natural site.

    None where the rows say nothing of persons.
    """
    if rows.person is None:
        return None
    names = numbered(rows.person)
    sites = numbered(rows.site)
    return numbered(sites * (int(names.max(initial=0)) + 1) + names)


def count(rows: Rows, row_numbers_by_site: Mapping[str, np.ndarray]) -> Persons | None:
    """Count the persons of all sites; None where the rows say nothing of persons."""
    numbers = numbers_of(rows)
    if numbers is None or rows.person is None:
        return None

    names = numbered(rows.person)
    sites_with = np.zeros(int(names.max(initial=0)) + 1, int)  # of each name
    of_sites = {}
    most_rows = 0
    for site, chosen in row_numbers_by_site.items():
        _, rows_of_each = np.unique(numbers[chosen], return_counts=True)
        of_sites[site] = len(rows_of_each)
        most_rows = max(most_rows, int(rows_of_each.max(initial=0)))
        sites_with[np.unique(names[chosen])] += 1
    return Persons(len(names), of_sites, most_rows, int((sites_with > 1).sum()))


def labels_of_persons(labels: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Return the label by which each person is split: of the labels of her rows the one that fewest rows have.

    So persons with a rare outcome are spread over the parts as rows with it would be.

    Args:
        labels: The label of each row, (rows,).
        person: The number of each row's person, as of ``numbered``, (rows,).
    """
    distinct, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rarity = np.argsort(np.argsort(-counts, kind="stable"), kind="stable")  # of each label; the rarest has the most
    by_rarity = np.argsort(-counts, kind="stable")
    rarest = np.zeros(int(person.max(initial=-1)) + 1, np.int64)
    np.maximum.at(rarest, person, rarity[inverse])
    return distinct[by_rarity[rarest]]


def without_later(parts: Mapping[str, np.ndarray], person: np.ndarray) -> dict[str, np.ndarray]:
    """Leave out the rows of persons who are in a later part as well, so that nobody is in two.

    Args:
        parts: {part: row numbers, ascending}, the latest part first.
        person: The number of each row's person, (rows,).
    """
    kept = {}
    later = np.zeros(0, np.int64)  # persons of the parts so far
    for part, chosen in parts.items():
        kept[part] = chosen[~np.isin(person[chosen], later)]
        later = np.union1d(later, person[chosen])
    return kept
