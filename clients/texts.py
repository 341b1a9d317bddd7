"""Plays as rows of characters: what each role says, cut into windows in the order of the play."""

import numpy as np

from clients.files import read_table

ALPHABET = "\n !\"',-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The characters of English plays: fixed beforehand, not collected from the rows."""

WINDOW = 40  # characters that a row has, each with the one that follows
CONTEXT = 5  # characters from which the next one is told
LONGEST_ROLES = 10


def windows_of(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Cut a text into windows that don't overlap, and leave the end out that fills none.

    Returns:
        The characters' numbers, int64 (windows, WINDOW), and those of the characters that follow each, in the same
        shape.
    """
    codes = np.frombuffer(text.encode("ascii"), np.uint8)
    number_of = np.full(128, -1)
    number_of[np.frombuffer(ALPHABET.encode("ascii"), np.uint8)] = np.arange(len(ALPHABET))
    numbers = number_of[codes]
    if (numbers < 0).any():
        raise ValueError(f"expected characters of the alphabet, got {text[int(np.argmin(numbers))]!r}")

    windows = (len(numbers) - 1) // WINDOW
    end = windows * WINDOW
    return numbers[:end].reshape(windows, WINDOW), numbers[1 : end + 1].reshape(windows, WINDOW)


def longest_roles() -> dict[str, str]:
    """Return all that each of the longest roles says, {play, role: its speeches, a line break after each}.

    How long a role is, anybody can count in the printed plays.
    """
    table = read_table("shakespeare_roles.csv.gz", keep_default_na=False)
    said = {}
    for (play, role), speeches in table.groupby(["play", "role"])["text"]:
        said[f"{play}, {role}"] = "\n".join(speeches) + "\n"
    longest = sorted(said, key=lambda role: len(said[role]), reverse=True)[:LONGEST_ROLES]
    return {role: said[role] for role in sorted(longest)}
