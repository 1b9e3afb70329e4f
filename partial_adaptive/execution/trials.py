"""Trials: a rule is run once where it can do no harm, before it is run on what is the user's.

On symbols where single elements are all that it must see, and on copies where it must see whole tensors.
"""

from collections.abc import Hashable

from partial_adaptive.execution.backend import Backend, Unit
from partial_adaptive.execution.compiled.program import static, trace
from partial_adaptive.execution.differentiable import Differentiable
from partial_adaptive.execution.eager import Loop
from partial_adaptive.execution.gathering import whole
from partial_adaptive.rules.rule import REMEMBERED, Rule, version_of
from partial_adaptive.rules.stage import Needs


class Trials:
    """Tries the rules of one optimizer, and remembers which it has tried."""

    def __init__(self) -> None:
        self._tried: dict[Rule, set[Hashable]] = {}

    def run(self, unit: Unit, backend: Backend, *, blank: bool) -> None:
        """Try a rule, if it has not been tried so before.

        Args:
            unit: whose rule.
            backend: who is to run it.
            blank: whether gradients may turn out to be of no use, which a rule may raise errors for.

        Raises:
            TypeError: where a rule for single elements does more.
        """
        if unit.rule not in self._tried:
            while len(self._tried) >= REMEMBERED:
                del self._tried[next(iter(self._tried))]
            self._tried[unit.rule] = set()
        tried = self._tried[unit.rule]
        if unit.rule.needs is Needs.ELEMENT:
            key: Hashable = static(unit.group, unit.table)
            if key not in tried:
                trace(unit.rule, unit.group, unit.table, scaled=False)
                tried.add(key)
            return
        for i, param in enumerate(unit.params):
            anywhere = {**unit.group, "partial": 0.3}  # a rule has the same lines for every p > 0
            differentiable = isinstance(backend, Differentiable)
            key = (static(anywhere, unit.table), param.shape, param.dtype, backend)
            if key not in tried:
                one = whole(unit, [i])
                copy = one.copied([0], blank=blank)
                grad = copy.columns["grad"][0]
                before = version_of(grad)
                Loop().prepare(copy).ready(copy)()
                if version_of(grad) != before:
                    names = ", ".join(type(stage).__name__ for stage in unit.rule.stages)
                    raise TypeError(f"one of {names} changes the gradient in place; it must leave it as it is")
                if not isinstance(backend, Loop):
                    copy = one.copied([0] if differentiable else [0, 0], blank=blank)
                    ready = backend.prepare(copy).ready(copy)
                    assert ready is not None, "what has just been prepared is ready"
                    ready()
                tried.add(key)
