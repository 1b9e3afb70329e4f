"""What a user can set right: the command line says it in one line, and exits with 2."""

import difflib
from collections.abc import Iterable


class BenchmarkError(Exception):
    """Bad input, or a place that cannot be written or read; every wing has its own kind."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: what was meant, probably, and what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return (f"; did you mean {close[0]!r}?" if close else ";") + f" known: {', '.join(known)}"


def known(names: Iterable[str] | None, among: Iterable[str], what: str) -> list[str]:
    """The names once each is known to be one of `among`; all of those for None."""
    among = list(among)
    for name in names or ():
        if name not in among:
            raise BenchmarkError(f"unknown {what} {name!r}{nearest(name, among)}")
    return among if names is None else list(names)
