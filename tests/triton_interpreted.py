"""Run the Triton kernels of every elementwise member on the CPU; needs TRITON_INTERPRET=1 before Triton is imported."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from partial_adaptive import MEMBERS, create
from partial_adaptive.execution.compiled import launch, triton
from partial_adaptive.rules.rounding import HALVES

OPTIONS: list[dict[str, Any]] = [{}, {"partial": 0.3, "weight_decay": 0.1}]


def train(
    name: str, dtype: torch.dtype, *, rounding: str = "nearest", scale: float = 1.0, **options: Any
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(3,), (), (0,), (1100,)]]
    params = [Parameter((start * scale).to(dtype)) for start in starts]
    optimizer = create(name, [{"params": params, "rounding": rounding}], **options)
    for _ in range(2):
        for param in params:
            param.grad = torch.randn(param.shape, dtype=torch.float64, generator=generator).to(dtype)
        optimizer.step()
    return [param.detach() for param in params]


def check_bad_steps(names: list[str]) -> None:
    """Check that the kernels of every member leave all as it is where a gradient is not finite, and count on after."""
    for name in names:
        params = [Parameter(torch.ones(shape)) for shape in [(3,), (), (0,), (1100,)]]
        optimizer = create(name, params, fused=True, capturable=True, skip_nonfinite=True)
        for bad in (math.nan, None, math.inf, None):
            for param in params:
                param.grad = torch.full_like(param, 0.5 if bad is None else bad)
            tensors = [value for state in optimizer.state.values() for value in state.values()]
            before = [tensor.clone() for tensor in (*params, *tensors)]
            optimizer.step()
            kept = all(torch.equal(*both) for both in zip(before, (*params, *tensors), strict=True))
            assert kept == (bad is not None), name
        assert optimizer.skipped == 2
        assert {state["step"].item() for state in optimizer.state.values()} == {2.0}


def main() -> None:
    """Compare with the other modes, and check that steps with infinite gradients are skipped."""
    launch.LANGUAGES = {"cpu": triton}
    names = [name for name, member in MEMBERS.items() if member.elementwise]
    for name, options, dtype in itertools.product(names, OPTIONS, (torch.float32, torch.float64)):
        tolerance = 2e-6 if dtype == torch.float32 else 1e-8
        for actual, expected in zip(
            train(name, dtype, fused=True, **options), train(name, dtype, foreach=True, **options), strict=True
        ):
            torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    for rounding, half, scale in itertools.product(("stochastic", "kahan"), HALVES, (1.0, 1e-5)):
        if (rounding, half) == ("kahan", torch.bfloat16):
            continue  # the interpreter cuts off where a GPU rounds to the nearest bfloat16
        modes: list[dict[str, Any]] = [{"fused": True}, {"foreach": True}]
        choice: dict[str, Any] = {"rounding": rounding, "scale": scale, "lr": 1e-3 * scale, "partial": 0.5}
        fused, foreach = (torch.cat([*map(torch.ravel, train("padam", half, **choice, **mode))]) for mode in modes)
        # The noise is the same, bit for bit; results that differ in the last bit are seldom rounded otherwise.
        assert (fused != foreach).sum() <= 3, (rounding, half, scale, (fused != foreach).sum())
    param = Parameter(torch.ones(3))
    optimizer = create("padam", [param], fused=True)
    for found_inf in (1.0, 0.0):
        param.grad = torch.full((3,), 8.0)
        vars(optimizer).update(grad_scale=torch.tensor(8.0), found_inf=torch.tensor(found_inf))
        before = param.detach().clone()
        optimizer.step()
        assert torch.equal(param, before) == bool(found_inf)
    torch.testing.assert_close(param.detach(), torch.full((3,), 0.9), rtol=1e-6, atol=0)
    assert optimizer.state[param]["step"] == 1
    check_bad_steps(names)


if __name__ == "__main__":
    main()
