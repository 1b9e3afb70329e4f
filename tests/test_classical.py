"""p = 1/2 is torch.optim: every keyword set of torch's own optimizer test data, for every counterpart."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from family import takes_complex, with_modes
from torch import Tensor
from torch.optim import AdamW, Optimizer

import partial_adaptive as pa
from partial_adaptive.testing.harness import default_dtype, parameters, same, train, values

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal import common_optimizers

PAIRS = [(member.name, member.counterpart) for member in pa.MEMBERS.values() if member.counterpart]
PAIRS += [("padam", AdamW), ("partial_adam", AdamW)]
TOLERANCES = {torch.float64: 1e-12, torch.complex128: 1e-12, torch.float32: 2e-5}


def keyword_sets() -> Iterator[Any]:
    """(member, counterpart, keywords, dtype); those for CUDA too, where torch tests `capturable` and tensor betas."""
    for name, counterpart in PAIRS:
        dtypes = [dtype for dtype in TOLERANCES if takes_complex(counterpart) or not dtype.is_complex]
        inputs = getattr(common_optimizers, f"optim_inputs_func_{counterpart.__name__.lower()}")
        for keywords in {str(x.kwargs): x.kwargs for device in ("cpu", "cuda") for x in inputs(device)}.values():
            if name == "padam" or "amsgrad" not in keywords:
                label = "-".join(f"{key}={value}" for key, value in keywords.items())
                for dtype in dtypes:
                    label_of_all = f"{name}-{counterpart.__name__}-{label}-{dtype}"
                    yield pytest.param(name, counterpart, keywords, dtype, id=label_of_all)


def in_dtype(value: Any, dtype: torch.dtype) -> Any:
    """Tensors among keywords in the dtype of the computation."""
    if isinstance(value, tuple):
        return tuple(in_dtype(v, dtype) for v in value)
    return value.to(dtype) if isinstance(value, Tensor) else value


@pytest.mark.parametrize(("name", "counterpart", "keywords", "dtype", "mode"), with_modes(keyword_sets()))
def test_half_is_torch(
    name: str,
    counterpart: type[Optimizer],
    keywords: dict[str, Any],
    dtype: torch.dtype,
    mode: dict[str, Any],
) -> None:
    """At p = 1/2 thirty steps with changing gradients agree with torch.optim's own implementation."""
    real = dtype.to_real()
    keywords = {**pa.MEMBERS[name].counterpart_options, **{k: in_dtype(v, real) for k, v in keywords.items()}}
    classical = {key: value for key, value in keywords.items() if key != "capturable"}  # torch allows it on CUDA alone
    theirs, ours = parameters(dtype=dtype), parameters(dtype=dtype)
    with default_dtype(real):
        reference = counterpart(theirs, foreach=False, **classical)
        options = {key: reference.defaults[key] for key in ("lr", "eps", "weight_decay")} | keywords
        if counterpart is AdamW:
            options["decoupled_weight_decay"] = True
        train(reference, 30)
        train(pa.create(name, ours, partial=0.5, **options, **mode), 30)
    same(values(ours), values(theirs), f"{name} at p = 1/2 is not {counterpart.__name__}", TOLERANCES[dtype])
