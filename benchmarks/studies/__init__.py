"""Studies: which optimizers are compared on what, with which settings and seeds. Nothing of torch is imported here."""

from benchmarks.studies.loading import load, names, parse, titles

__all__ = ["load", "names", "parse", "titles"]
