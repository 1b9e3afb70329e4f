"""On a GPU: every member through the conformance suite, its graphs, and the way between GPU and CPU.

Without one there is nothing to test here: `python -m pytest tests/test_cuda.py` on a machine that has one.
"""

import copy
from typing import Any

import pytest
import torch
from family import in_modes, maker
from torch.nn import Parameter

from partial_adaptive import MEMBERS
from partial_adaptive.testing import Check, parametrize_checks
from partial_adaptive.testing.harness import default_dtype, gradient, parameters, same, train, values
from partial_adaptive.testing.persistence import saved

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

TOLERANCE = 1e-10  # sums over rows and matrix products are taken in another order


@pytest.mark.parametrize("name", MEMBERS)
@parametrize_checks
def test_member(name: str, check: Check) -> None:
    """Every member keeps every promise there, too."""
    with torch.device("cuda"):
        check(maker(name))


def twins() -> tuple[list[Parameter], list[Parameter]]:
    """The same parameters on the GPU and on the CPU."""
    params = parameters()
    return [Parameter(param.detach().cuda()) for param in params], params


@pytest.mark.parametrize(("name", "mode"), in_modes([*MEMBERS]))
def test_as_on_the_cpu(name: str, mode: dict[str, Any]) -> None:
    """Each mode takes the steps of the plain loop on the CPU, and a checkpoint of either is read by the other."""
    there, here = twins()
    on_gpu, on_cpu = maker(name)(there, **mode), maker(name)(here, foreach=False)
    train(on_gpu, 3)
    train(on_cpu, 3)
    same([value.cpu() for value in values(there)], values(here), "the GPU goes elsewhere", TOLERANCE)
    back, forth = copy.deepcopy(here), [Parameter(param.detach().cuda()) for param in here]
    from_gpu, from_cpu = maker(name)(back, **mode), maker(name)(forth, **mode)
    from_gpu.load_state_dict(saved(on_gpu))
    from_cpu.load_state_dict(saved(on_cpu))
    for optimizer in (on_cpu, from_gpu, from_cpu):
        train(optimizer, 2, start=3)
    same(values(back), values(here), "a checkpoint of the GPU goes elsewhere on the CPU", TOLERANCE)
    same([value.cpu() for value in values(forth)], values(here), "a checkpoint of the CPU goes elsewhere", TOLERANCE)


@pytest.mark.parametrize(("name", "mode"), in_modes([name for name, member in MEMBERS.items() if member.elementwise]))
def test_graph(name: str, mode: dict[str, Any]) -> None:
    """A graph captured after an eager step takes, replayed, the CPU's steps, with the lr and p that are set then."""
    with default_dtype(torch.float64):  # that of a step count
        there, here = twins()
        numbers = {"lr": (0.1, 0.03, 0.01), "partial": (0.3, 0.2, 0.4)}
        tensors = {key: torch.tensor(value[0], dtype=torch.float64, device="cuda") for key, value in numbers.items()}
        on_gpu, on_cpu = maker(name)(there, capturable=True, **tensors, **mode), maker(name)(here, foreach=False)
        graph = torch.cuda.CUDAGraph()
        for step in range(3):
            for i, (ours, right) in enumerate(zip(there, here, strict=True)):
                right.grad = gradient(right, step, i)
                if ours.grad is None:
                    ours.grad = torch.empty_like(ours)
                ours.grad.copy_(right.grad)
            for key, value in numbers.items():
                tensors[key].fill_(value[step])
                on_cpu.param_groups[0][key] = value[step]
            if step == 0:
                on_gpu.step()
                torch.cuda.synchronize()
                with torch.cuda.graph(graph):
                    on_gpu.step()
            else:
                graph.replay()
            on_cpu.step()
            same([value.cpu() for value in values(there)], values(here), f"step {step} of a graph differs", TOLERANCE)
