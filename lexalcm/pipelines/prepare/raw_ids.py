"""Finds ids that come twice, with eight bytes a document."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lexalcm.errors import DataError


class IdCheck:
    """Takes in the ids of all documents in order; keeps their hashes."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._missing: str | None = None

    def see(self, value: Any, place: Callable[[], str]) -> None:
        """
        :param place: Tells where ``value`` stands.
        """
        if (value is None or value == "") and self._missing is None:
            self._missing = place()
        self._hashes.append(hash(str(value)))

    def see_rows(self, values: Sequence[Any], place: Callable[[int], str]) -> None:
        """
        :param place: Tells where a value of that number stands.
        """
        if self._missing is None:
            missing = next((number for number, value in enumerate(values) if value is None or value == ""), None)
            self._missing = None if missing is None else place(missing)
        self._hashes.extend(hash(str(value)) for value in values)

    def check(self, column: str, document: Callable[[int], tuple[str, str]]) -> None:
        """
        :param column: What the input calls them.
        :param document: Tells id and place of the document of a number.
        :raises DataError: A document has none, or that of another.
        """
        if self._missing is not None:
            raise DataError(
                f"{self._missing}: the document has no `{column}`, though others have one.\n"
                f"Give it one, or have ids made for all (--drop-column {column})."
            )
        hashes = np.frombuffer(self._hashes, np.int64) if self._hashes else np.zeros(0, np.int64)
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
        # The first repetition in the order of the input; equal hashes of different ids are told apart.
        for number in same[np.argsort(order[same + 1], kind="stable")].tolist():
            (first, first_place), (second, place) = (document(int(row)) for row in order[number : number + 2])
            if first == second:
                raise DataError(
                    f"{place}: `{column}` is {second!r}, as it is at {first_place}: ids must name one document each.\n"
                    f"Make them so, or have ids made (--drop-column {column}), or take them from another --id-column."
                )
