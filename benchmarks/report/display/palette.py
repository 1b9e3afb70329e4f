"""How an arm looks: a colour for light and dark pages and a dash, the same in every chart.

The five hues and the ink keep apart under protanopia, deuteranopia and tritanopia (distance in OKLab at least 0.09,
five times what can just be seen), and have a contrast of at least 3 to the page.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from benchmarks.report.results import Series

INK = ("#1b1f24", "#e6e8eb")
"""Of text and of the reference, on light and on dark pages."""
HUES = (
    ("#4f7df5", "#86a8ff"),
    ("#e15f0a", "#efb031"),
    ("#0d5a2e", "#1f8a5a"),
    ("#6a1fa0", "#7b4fd8"),
    ("#b0356a", "#d873a5"),
)
DASHES = ((), (6, 3), (2, 2), (9, 3, 2, 3), (1, 4), (12, 3, 2, 3, 2, 3))
RAMP = (
    ("#0d0887", "#5c6bf2"),
    ("#5601a4", "#8a5cf0"),
    ("#8f0da4", "#b55ad6"),
    ("#bf3984", "#d9649f"),
    ("#de5f65", "#f0876b"),
    ("#c9731f", "#f5ad52"),
    ("#8a8a00", "#e6dc5a"),
)
"""From small to large, where all arms are one optimizer."""


@dataclasses.dataclass(frozen=True)
class Style:
    """The look of an arm.

    Args:
        light: its colour on a light page.
        dark: its colour on a dark page.
        dash: lengths of dash and gap; empty for a solid line.
    """

    light: str
    dark: str
    dash: tuple[int, ...] = ()


def key(series: Series) -> str:
    """What an arm is called on every workload: its label without the workload."""
    return series.arm.name


def styles(series: Sequence[Series], reference: str | None = None) -> Mapping[str, Style]:
    """The look of each arm by `key`.

    Args:
        series: all arms that meet on a page, in the order of their looks.
        reference: the arm in ink.
    """
    names = {key(one): one.arm.config.optimizer for one in series}
    others = [name for name in names if name != reference]
    if len(names) > 2 and len(set(names.values())) == 1:
        return {name: _on_ramp(i, len(names)) for i, name in enumerate(names)}
    found = {name: Style(*INK) for name in names if name == reference}
    for i, name in enumerate(others):
        light, dark = HUES[i % len(HUES)]
        found[name] = Style(light, dark, DASHES[i // len(HUES) % len(DASHES)])
    return {name: found[name] for name in names}


def shared(studies: Sequence[tuple[Sequence[Series], str | None]]) -> list[Mapping[str, Style]]:
    """The looks of the arms of each study, the same on all of a page where the studies have the same reference.

    Args:
        studies: arms and reference of each.
    """
    together = len({reference for _, reference in studies}) == 1
    everything = [one for series, _ in studies for one in series]
    found: list[Mapping[str, Style]] = []
    for series, reference in studies:
        known = styles(everything if together else series, reference)
        found.append({name: known[name] for name in dict.fromkeys(map(key, series))})
    return found


def _on_ramp(i: int, count: int) -> Style:
    """Of `count` arms in order the i-th; more arms than colours share them, under different dashes."""
    place = i * (len(RAMP) - 1) / (count - 1)
    earlier = sum(round(j * (len(RAMP) - 1) / (count - 1)) == round(place) for j in range(i))
    return Style(*RAMP[round(place)], DASHES[earlier % len(DASHES)])
