"""Random lives under two processes: a sharded model that is saved and loaded again and again, and its twin that is not.

Both have the same hyperparameters, gradients, freezes and losses of state at the same moments. The twin is plain, runs
in the loop, and is never saved; the sharded one changes modes, and goes on in fresh optimizers, made at any p, from
checkpoints of every kind. After each step all parameters must be where the twin's are.

`make test` runs one short life of each member, always the same. Longer ones, or others:

    FUZZ_LIVES=50 FUZZ_SEED=7 .venv/bin/python -m pytest tests/distributed/test_checkpoint_fuzz.py -rP
"""

import os
from collections import Counter
from random import Random
from typing import Any

import pytest
import torch
from family import has
from lives import LOOP, WAYS, Life, distance, folder, placed_as, refused, started, whole
from processes import World
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive.testing.harness import MODES, default_dtype, gradient

LIVES = int(os.environ.get("FUZZ_LIVES", "0"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
LENGTH = 40 if LIVES else 12  # operations of a life
EXPONENTS = (0.0, 0.0, 0.125, 0.25, 0.3, 0.5)
NUMBERS: dict[str, tuple[Any, ...]] = {
    "lr": (0.0, 1e-3, 1e-2),
    "weight_decay": (0.0, 0.1),
    "eps": (1e-8, 1e-3),
    "betas": ((0.9, 0.999), (0.5, 0.9)),
    "maximize": (False, True),
    "decoupled_weight_decay": (False, True),
}
OFF = {"foreach": None, "fused": None, "capturable": False}
TOLERANCE = 1e-9  # rounding differs from mode to mode, and what is divided by it may be small


class Pair:
    """A sharded life and its twin.

    Args:
        name: the member.
        seed: of all choices, which both processes make alike.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = Random(f"{name} {seed}")
        self.done: Counter[str] = Counter()
        p = self.random.choice(EXPONENTS)
        self.twin = started(name, "plain", p, LOOP)
        self.life = started(name, "FSDP2", p, self.mode())
        self.number = 0

    def mode(self) -> dict[str, Any]:
        """One that the member has."""
        modes = [mode for mode in (*MODES, {"capturable": True}) if has(self.name, mode)]
        return OFF | self.random.choice(modes)

    @property
    def pairs(self) -> list[tuple[Life, list[Tensor]]]:
        """Both, each with its parameters."""
        return [(life, [*life.model.parameters()]) for life in (self.life, self.twin)]

    def steps(self) -> None:
        """Some steps; parameters may have no gradients in one, or those of an enormous or a tiny loss."""
        for _ in range(self.random.choice((1, 1, 2, 5))):
            frozen = self.random.choice((None, None, None, 0, 1))
            factor = self.random.choice((1.0, 1.0, 1e-4, 1e4))
            for life, params in self.pairs:
                for index, param in enumerate(params):
                    value = gradient(torch.empty(param.shape, dtype=torch.float64), self.number, index) * factor
                    param.grad = None if index == frozen else placed_as(param, value)
                life.optimizer.step()
            self.number += 1
            self.done["steps"] += 1
            off = distance(self.life.model, whole(self.twin.model))
            if not off <= TOLERANCE:
                raise AssertionError(f"off by {off:.0e} after {dict(self.done)}: {self.life.optimizer}")

    def change(self) -> None:
        """A hyperparameter."""
        group = self.twin.optimizer.param_groups[0]
        known = [name for name, values in NUMBERS.items() if type(group.get(name)) is type(values[0])]
        name = self.random.choice(["partial"] * 4 + known)
        value = self.random.choice(EXPONENTS if name == "partial" else NUMBERS[name])
        for life, _ in self.pairs:
            life.optimizer.param_groups[0][name] = value

    def switch(self) -> None:
        """Another mode of the sharded one."""
        self.life.optimizer.param_groups[0].update(self.mode())

    def clear(self) -> None:
        """The state of a parameter is lost, or of all."""
        which = self.random.choice((0, 1, None))
        for life, params in self.pairs:
            for param in params if which is None else [params[which]]:
                life.optimizer.state.pop(param, None)

    def save(self) -> None:
        """A checkpoint, and a fresh optimizer of another p and mode that goes on from there."""
        if any(not self.life.optimizer.state.get(param) for param in self.life.model.parameters()):
            return  # torch.distributed.checkpoint asks for the state of each
        way = self.random.choice([way for way in WAYS if way != "file"])
        fresh = started(self.name, "FSDP2", self.random.choice(EXPONENTS), self.mode())
        for path in folder():
            WAYS[way][0]({"it": self.life}, path)
            WAYS[way][1]({"it": fresh}, path)
        self.life = fresh
        self.done["checkpoints"] += 1

    def live(self) -> Counter[str]:
        """All of it."""
        operations = [self.change, self.change, self.switch, self.clear, self.save, self.save, self.save]
        self.steps()
        for _ in range(LENGTH):
            self.random.choice(operations)()
            self.steps()
        return self.done


def life(name: str, seed: int) -> Counter[str]:
    """A life in one of the processes."""
    with default_dtype(torch.float64):  # in which steps are counted where they are on the device
        return Pair(name, seed).live()


@pytest.mark.environment("checkpoint, random lives, 2 → 2")
@pytest.mark.parametrize("mode", [LOOP], ids=str)
@pytest.mark.parametrize("name", pa.MEMBERS)
def test_lives(name: str, mode: dict[str, Any], two: World, record_property: Any) -> None:
    """Whatever is saved and loaded between two steps, the sharded model goes where its twin does."""
    if reason := two.run(refused, name, mode)[0]:
        record_property("refused", reason)
        return
    done: Counter[str] = Counter()
    for seed in range(SEED, SEED + max(LIVES, 1)):
        print(f"{name}: FUZZ_SEED={seed} after {dict(done)}")  # noqa: T201  # shown by -rP
        done += two.run(life, name, seed)[0]
    print(f"{name}: {dict(done)}")  # noqa: T201  # shown by -rP
    assert done["checkpoints"] >= max(LIVES, 1)
