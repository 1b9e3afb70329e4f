"""The tables of the page "Which p?", from the studies on record."""

from pathlib import Path

from benchmarks.report.evidence import claims, exponents, studied
from benchmarks.report.evidence.documented import Documented
from benchmarks.report.results import mixture


def tables(root: Path = studied.RECORDS) -> dict[str, Documented]:
    """All of them, by the names that the page gives them; each says where its runs are of several versions."""
    every = studied.recorded(root)
    found = [study for study in every if study.whole]
    made = {
        "exponent-tally": exponents.tally(found),
        "exponents": exponents.by_exponent(found),
        "exponent-rates": exponents.rates(found),
        "exponent-targets": exponents.epochs_to_target(found),
        "exponent-baselines": exponents.against_baselines(found),
        "exponent-direction": exponents.among(found, "direction"),
        "exponent-bias": exponents.among(found, "bias", of_one_p=True),
        "claim-tally": claims.tally(found),
        "claims": claims.table(found),
        "exponent-budgets": exponents.budgets(every),
    }
    warnings = [
        f"{study.name}: {warning}"
        for study in found
        for warning in (*study.report.notes, *mixture([*study.report.trials, *study.report.series]))
    ]
    return {name: one._replace(note=" ".join([one.note, *warnings])) for name, one in made.items()}
