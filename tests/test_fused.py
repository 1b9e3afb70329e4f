"""fused=True: the same arithmetic, traced and compiled, on the CPU and (interpreted, or compiled only) for CUDA."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family import ELEMENTWISE, WHOLE, maker
from torch import Tensor
from torch.nn import Parameter

from partial_adaptive import TENSOR, Estimator, Hyper, Padam, PartialAdagrad, PartialAdaptiveOptimizer, Slot, create
from partial_adaptive.execution.compiled import launch
from partial_adaptive.execution.compiled.program import trace

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "general p": {"partial": 0.3},
    "classical": {"partial": 0.5, "weight_decay": 0.1},
    "p = 0": {"partial": 0.0, "maximize": True},
    "decoupled": {"partial": 3 / 16, "weight_decay": 0.1, "decoupled_weight_decay": True},
}
SHAPES = [(3, 4), (), (0,), (7,), (50, 41)]


def parameters(dtype: torch.dtype = torch.float64) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(shape, dtype=dtype, generator=generator)) for shape in SHAPES]


def train(optimizer: torch.optim.Optimizer, steps: int = 5, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn(param.shape, dtype=param.dtype, generator=generator)
        optimizer.step()
    return [param.detach().clone() for param in params]


def check_equal(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.float32], ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_equals_foreach(name: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    """The compiled program is the rule, for every elementwise member: to rounding in float64, to 1e-6 in float32."""
    expected = train(create(name, parameters(dtype), foreach=True, **options))
    actual = train(create(name, parameters(dtype), fused=True, **options))
    check_equal(actual, expected, 2e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_tensors_are_not_compiled(name: str) -> None:
    """Other members refuse it by the stage that must see more, and nothing has moved."""
    params = parameters()
    optimizer = maker(name)(params, fused=True)
    stages = "|".join(type(stage).__name__ for stage in optimizer.recipe.stages if stage.needs is TENSOR)
    with pytest.raises(RuntimeError, match=rf"fused=True .*({stages})"):
        train(optimizer)
    check_equal([param.detach() for param in params], [param.detach() for param in parameters()], 0.0)
    assert not optimizer.state


def test_every_option_of_the_members() -> None:
    """Switched stages, their state and their hyperparameters reach the kernel."""
    for name, options in (
        ("partial_rmsprop", {"centered": True, "momentum": 0.9}),
        ("partial_adagrad", {"mean": True, "lr_decay": 0.1, "initial_accumulator_value": 0.5}),
        ("padam", {"amsgrad": False, "bias_correction": "adam"}),
        ("partial_nadam", {"bias_correction": "none"}),
    ):
        expected = train(create(name, parameters(), foreach=True, **options))
        check_equal(train(create(name, parameters(), fused=True, **options)), expected, 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("state_dtype", [None, torch.float32], ids=str)
def test_low_precision(dtype: torch.dtype, state_dtype: torch.dtype | None) -> None:
    """Parameters in 16 bits are updated in float32 and rounded once, whatever the dtype of the state."""
    optimizer = Padam(parameters(dtype), fused=True, state_dtype=state_dtype)
    fused_params = train(optimizer, steps=1)
    assert {value.dtype for state in optimizer.state.values() for value in state.values()} == {torch.float32}
    wide = [Parameter(param.detach().float()) for param in parameters(dtype)]
    expected = Padam(wide, foreach=True)
    generator = torch.Generator().manual_seed(1)
    for param in wide:
        param.grad = torch.randn(param.shape, dtype=dtype, generator=generator).float()
    expected.step()
    check_equal(fused_params, [param.detach().to(dtype) for param in wide], torch.finfo(dtype).eps)


def test_numbers_never_recompile(monkeypatch: pytest.MonkeyPatch) -> None:
    """New lr, betas, eps, weight decay, general p or tensor p need no new program; each ladder of roots is one."""
    programs = []
    monkeypatch.setattr(launch, "trace", lambda *args, **kwargs: programs.append(1) or trace(*args, **kwargs))
    optimizer = Padam(parameters(), fused=True, partial=0.3, weight_decay=0.1)
    expected = Padam(parameters(), foreach=True, partial=0.3, weight_decay=0.1)
    for changes in (
        {"lr": 0.05},
        {"lr": torch.tensor(0.02)},
        {"betas": (0.8, 0.99)},
        {"eps": 1e-3},
        {"weight_decay": 0.2},
        {"partial": 0.2},
        {"partial": torch.tensor(0.4)},
    ):
        optimizer.param_groups[0].update(changes)
        expected.param_groups[0].update(changes)
        check_equal(train(optimizer, 1), train(expected, 1), 1e-12)
    assert len(programs) == 1
    for partial in (1 / 8, 1 / 4, 1 / 8):
        optimizer.param_groups[0]["partial"] = partial
        train(optimizer, 1)
    assert len(programs) == 3


def test_parameters_in_any_memory_order() -> None:
    """Transposed, channels-last and strided parameters are updated where they are, whatever their gradients' layout."""

    def odd() -> list[Parameter]:
        generator = torch.Generator().manual_seed(0)
        a = torch.randn(4, 6, generator=generator, dtype=torch.float64)
        b = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
        return [Parameter(a.t()), Parameter(b.to(memory_format=torch.channels_last)), Parameter(a.clone()[:, ::2])]

    check_equal(train(Padam(odd(), fused=True)), train(Padam(odd(), foreach=False)), 1e-12)


def test_sparse_gradients() -> None:
    """Only the rows that have gradients change, as in the other modes."""

    def embedding(**mode: Any) -> Tensor:
        param = Parameter(torch.ones(5, 3, dtype=torch.float64))
        optimizer = PartialAdagrad([param], **mode)
        for row in (1, 3, 1):
            indices, values = torch.tensor([[row, row]]), torch.full((2, 3), 0.5, dtype=torch.float64)
            param.grad = torch.sparse_coo_tensor(indices, values, (5, 3), check_invariants=True)
            optimizer.step()
        return param.detach()

    torch.testing.assert_close(embedding(fused=True), embedding(foreach=False), rtol=1e-12, atol=0)


def test_launches_follow_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tensors are is read at every step; how they look is planned for anew where it changes, and only there."""
    optimizer, expected = Padam(parameters(), fused=True), Padam(parameters(), foreach=True)
    prepared = []
    prepare = launch.Compiled.prepare
    monkeypatch.setattr(launch.Compiled, "prepare", lambda *args: prepared.append(1) or prepare(*args))

    def both(change: Callable[[PartialAdaptiveOptimizer], None]) -> int:
        prepared.clear()
        for each in (optimizer, expected):
            change(each)
            train(each, 2)
        check_equal(
            [p.detach() for p in optimizer.param_groups[0]["params"]],
            [p.detach() for p in expected.param_groups[0]["params"]],
            1e-12,
        )
        entries = [list(optimizer.state[p].values()) for p in optimizer.param_groups[0]["params"]]
        right = [list(expected.state[p].values()) for p in expected.param_groups[0]["params"]]
        for ours, theirs in zip(entries, right, strict=True):
            check_equal(ours, theirs, 1e-12)
        return len(prepared)

    def drop(each: PartialAdaptiveOptimizer) -> None:
        each.param_groups[0]["params"][0].grad = None
        each.step()

    def move(each: PartialAdaptiveOptimizer) -> None:
        for param in each.param_groups[0]["params"]:
            param.data = param.data.clone()

    def replace(each: PartialAdaptiveOptimizer) -> None:
        for state in each.state.values():
            state["exp_avg"] = state["exp_avg"].clone()
            state["step"] = state["step"].clone()

    def clear(each: PartialAdaptiveOptimizer) -> None:
        each.state.clear()

    def clear_one(each: PartialAdaptiveOptimizer) -> None:
        each.state[each.param_groups[0]["params"][0]].clear()

    def exchange(each: PartialAdaptiveOptimizer) -> None:
        """Equal shapes swap places: nothing looks otherwise, everything is elsewhere."""
        first, *_, last = each.param_groups[0]["params"]
        first.data, last.data = last.data, first.data
        for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            ours, theirs = each.state[first], each.state[last]
            ours[name], theirs[name] = theirs[name], ours[name]

    def transpose(each: PartialAdaptiveOptimizer) -> None:
        for param in each.param_groups[0]["params"]:
            if param.ndim == 2:
                param.data = param.data.t().contiguous().t()

    def spread(each: PartialAdaptiveOptimizer) -> None:
        for param in each.param_groups[0]["params"]:
            wide = torch.stack([each.state[param]["exp_avg_sq"]] * 2, -1)
            each.state[param]["exp_avg_sq"] = wide[..., 0]

    def resize(each: PartialAdaptiveOptimizer) -> None:
        first = each.param_groups[0]["params"][0]
        first.data = torch.ones(7, 5, dtype=torch.float64)
        each.state[first].clear()

    assert both(lambda _: None) == 1
    assert both(lambda _: None) == 0
    assert both(lambda each: each.load_state_dict(each.state_dict())) <= 1
    assert both(drop) == 2
    assert both(move) == 0
    assert both(replace) == 0
    assert both(clear) == 1
    assert both(clear_one) == 1
    assert both(transpose) == 1
    assert both(spread) == 1
    assert both(resize) == 1
    assert both(exchange) == 1


def test_gradients_with_lazy_bits() -> None:
    """A gradient that comes as a pending negation, or in the memory of another, is the value that it stands for."""

    def moved(**mode: Any) -> list[Tensor]:
        params = [Parameter(torch.ones(4, dtype=torch.float64)) for _ in range(3)]
        optimizer = Padam(params, **mode)
        numbers = torch.linspace(1, 2, 4, dtype=torch.float64).to(torch.complex128) * (1 + 2j)
        for step in range(4):
            params[0].grad = numbers.conj().imag if step % 2 else numbers.imag.clone()
            params[1].grad = torch._efficientzerotensor((4,), dtype=torch.float64) if step == 2 else numbers.real
            params[2].grad = params[0].grad
            optimizer.step()
        return [param.detach() for param in params]

    check_equal(moved(fused=True), moved(foreach=False), 1e-12)


def test_autograd_notices() -> None:
    """What a kernel writes behind autograd's back counts as a change in place."""
    param = Parameter(torch.ones(3))
    optimizer = Padam([param], fused=True)
    param.grad = torch.ones(3)
    for _ in range(2):
        version, product = param._version, (param * param).sum()
        optimizer.step()
        assert param._version > version
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()
        param.grad = torch.ones(3)


def test_grad_scaler() -> None:
    """`torch.amp.GradScaler` leaves unscaling and the skipping of infinite gradients to the kernel; `.grad` stays."""
    param, reference = (Parameter(torch.ones(4)) for _ in range(2))
    optimizer, expected = Padam([param], fused=True), Padam([reference])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for factor in (1.0, math.inf, 2.0):
        optimizer.zero_grad()
        scaler.scale((param * param).sum() * factor).backward()
        gradient = param.grad.clone()
        scaler.step(optimizer)
        scaler.update()
        torch.testing.assert_close(param.grad, gradient, rtol=0, atol=0)
        if math.isfinite(factor):
            reference.grad = (2 * reference * factor).detach()
            expected.step()
    torch.testing.assert_close(param, reference, rtol=1e-6, atol=0)
    assert optimizer.state[param]["step"] == 2


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a C++ compiler, and with one that fails, the error says what to do and nothing has changed."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    for command, message in (("no-such-compiler", "needs a C\\+\\+ compiler"), ("false", "false .* failed")):
        monkeypatch.setenv("CXX", command)
        param = Parameter(torch.ones(3))
        param.grad = torch.ones(3)
        optimizer = Padam([param], fused=True, partial=29 / 128)  # a ladder of roots that nobody else has compiled
        with pytest.raises(RuntimeError, match=message):
            optimizer.step()
        torch.testing.assert_close(param.detach(), torch.ones(3))
        assert not optimizer.state


def test_no_place_for_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where kernels cannot be kept, the error names the place and the way out."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    param = Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match=r"cannot be written; name another directory in \$TORCH_EXTENSIONS_DIR"):
        Padam([param], fused=True, partial=27 / 128).step()
    torch.testing.assert_close(param.detach(), torch.ones(3))


@pytest.mark.parametrize("options", [{"foreach": True}, {"differentiable": True}], ids=str)
def test_exclusive_modes(options: dict[str, Any]) -> None:
    """Fused excludes foreach and differentiable."""
    with pytest.raises(ValueError, match="fused=True excludes"):
        Padam([Parameter(torch.ones(1))], fused=True, **options)


def test_power_for_all_floats() -> None:
    """The vectorized power is right to 3e-7 from subnormal numbers to the largest, and at 0 and infinity."""
    scale = torch.cat(
        [torch.logspace(-44, 38, 4001, dtype=torch.float64).float(), torch.tensor([0.0, math.inf, math.nan])]
    )
    for p in (0.01, 0.2, 0.3, 0.49):

        class Given(Estimator):
            slots = {"given": Slot()}

            def scale(self, grad: Tensor, hyper: Hyper, given: Tensor) -> Tensor:
                return given.clone()

        param = Parameter(torch.zeros_like(scale))
        param.grad = torch.ones_like(scale)
        optimizer = PartialAdaptiveOptimizer([param], {"lr": 1.0, "fused": True, "partial": p}, estimator=Given())
        optimizer.state[param].update(step=torch.tensor(0.0), given=scale.clone())
        optimizer.step()
        exponent = torch.tensor(2 * p, dtype=torch.float32).item()
        expected = (1 / scale.double() ** exponent).float()
        torch.testing.assert_close(-param.detach(), expected, rtol=3e-7, atol=0, equal_nan=True)


def run_script(name: str, **environment: str) -> None:
    script = Path(__file__).parent / name
    result = subprocess.run(
        [sys.executable, script], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_triton_interpreted() -> None:
    """The Triton program of every member is the rule, run on the CPU by Triton's interpreter."""
    pytest.importorskip("triton", reason="Triton comes with torch on Linux only")
    run_script("triton_interpreted.py", TRITON_INTERPRET="1")


def test_triton_compiled() -> None:
    """Triton programs compile for a GPU, with 128-bit loads and stores; no GPU is needed for that."""
    pytest.importorskip("triton", reason="Triton comes with torch on Linux only")
    run_script("triton_compiled.py")


@pytest.mark.parametrize("partial", [0.5, 0.49, 0.3])
def test_subnormal_scales(partial: float) -> None:
    """n/s^(2p) of a subnormal s is what the loop has, not NaN: s^(−2p) alone would be infinite, and n may be 0."""
    results = []
    for mode in ({"foreach": False}, {"fused": True}):
        param = Parameter(torch.zeros(4))
        optimizer = create("partial_adamax", [param], lr=0.1, eps=0.0, partial=torch.tensor(partial), **mode)
        for grad in ([1e-45, 1e-40, 1e38, 1.0], [0.0, 1e-40, 1e38, 1.0], [1e-45, 0.0, 1e38, 1.0]):
            param.grad = torch.tensor(grad)
            optimizer.step()
        results.append(param.detach())
    assert results[1].isfinite().all()
    torch.testing.assert_close(results[1], results[0], rtol=2e-5, atol=1e-40)
