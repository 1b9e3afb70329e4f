"""Where training runs, in one process: what happens around `step` changes nothing of what it does.

Each case trains a small network of real layers, once as its environment has it and once by the plainest loop, and both
must end in the same place. Those of several processes are in tests/distributed/.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.optim.swa_utils as swa
from family import CAPTURABLE, in_modes, maker
from torch import Tensor, nn

import partial_adaptive as pa
from partial_adaptive.testing.harness import same, values

STEPS = 5
CASES = pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), CAPTURABLE))
LR = 0.01

Trained = list[Tensor]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)).double()


def loss_of(model: Callable[[Tensor], Tensor], step: int) -> Tensor:
    """The loss of a batch, on every call the same."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    targets = torch.randn(6, 2, dtype=torch.float64, generator=generator)
    return nn.functional.mse_loss(model(inputs), targets)


def plainly(name: str, mode: dict[str, Any], steps: Any = range(STEPS), **options: Any) -> Trained:
    """Where the plainest loop ends."""
    model = network()
    optimizer = maker(name, lr=LR)(model.parameters(), **mode, **options)
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
    return values(model.parameters())


def ends(model: nn.Module, expected: Trained, otherwise: str) -> None:
    same(values(model.parameters()), expected, otherwise, 1e-12)


@pytest.mark.environment("AMP, with skipped steps")
@CASES
def test_amp(name: str, mode: dict[str, Any]) -> None:
    """A `GradScaler` scales by powers of two, and a step that it skips is as if its batch had never been there."""
    model = network()
    optimizer = maker(name, lr=LR)(model.parameters(), **mode)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    for step in range(STEPS):
        optimizer.zero_grad()
        bad = float("inf") if step in (0, 3) else 1.0
        scaler.scale(loss_of(model, step) * bad).backward()
        scaler.step(optimizer)
        scaler.update()
    ends(model, plainly(name, mode, [1, 2, 4]), "scaling, or a skipped step, has changed something")
    assert all(state["step"] == 3 for state in optimizer.state.values())


@pytest.mark.environment("AMP, with skipped steps")
@CASES
def test_amp_with_clipping(name: str, mode: dict[str, Any]) -> None:
    """Gradients that were unscaled for clipping are not unscaled again by the step."""
    model, expected = network(), network()
    optimizer = maker(name, lr=LR)(model.parameters(), **mode)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    other = maker(name, lr=LR)(expected.parameters(), **mode)
    for step in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        other.zero_grad()
        loss_of(expected, step).backward()
        nn.utils.clip_grad_norm_(expected.parameters(), 0.5)
        other.step()
    ends(model, values(expected.parameters()), "clipped gradients were scaled once more")


@pytest.mark.environment("step in backward")
@CASES
def test_step_in_backward(name: str, mode: dict[str, Any]) -> None:
    """An optimizer for each parameter, which steps as soon as the gradient is there and frees it."""
    model = network()
    optimizers = {param: maker(name, lr=LR)([param], **mode) for param in model.parameters()}

    def hook(param: Tensor) -> None:
        optimizers[param].step()
        optimizers[param].zero_grad()

    for param in model.parameters():
        param.register_post_accumulate_grad_hook(hook)
    for step in range(STEPS):
        loss_of(model, step).backward()
        assert all(param.grad is None for param in model.parameters())
    ends(model, plainly(name, mode), "a step inside backward is another one")


@pytest.mark.environment("EMA and SWA of the weights")
@CASES
def test_averaged_weights(name: str, mode: dict[str, Any]) -> None:
    """An average of the weights is that of what the steps made, and training goes on after evaluating with it."""
    model = network()
    ema = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.75))
    mean = swa.AveragedModel(model)
    optimizer = maker(name, lr=LR)(model.parameters(), **mode)
    seen = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        ema.update_parameters(model)
        mean.update_parameters(model)
        seen.append(values(model.parameters()))
        for weights, average in zip(model.parameters(), ema.parameters(), strict=True):  # there and back
            weights.data, average.data = average.data, weights.data
        loss_of(model, 100)
        for weights, average in zip(model.parameters(), ema.parameters(), strict=True):
            weights.data, average.data = average.data, weights.data
    ends(model, plainly(name, mode), "averaging, or evaluating with the average, has changed the training")
    ends(mean.module, [torch.stack(it).mean(0) for it in zip(*seen, strict=True)], "the mean is of other weights")
    expected = seen[0]
    for weights in seen[1:]:
        expected = [0.75 * average + 0.25 * it for average, it in zip(expected, weights, strict=True)]
    ends(ema.module, expected, "the moving average is of other weights")


@pytest.mark.environment("EMA and SWA of the weights")
@CASES
def test_swa_schedule(name: str, mode: dict[str, Any]) -> None:
    """`SWALR` moves the learning rate as it does torch's."""
    model, expected = network(), network()
    optimizer = maker(name, lr=0.1)(model.parameters(), **mode)
    scheduler = swa.SWALR(optimizer, swa_lr=0.001, anneal_epochs=3)
    rates = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] > rates[1] > rates[2] > rates[3] == rates[4] == 0.001
    other = maker(name, lr=0.1)(expected.parameters(), **mode)
    for step, rate in enumerate(rates):
        other.param_groups[0]["lr"] = rate
        other.zero_grad()
        loss_of(expected, step).backward()
        other.step()
    ends(model, values(expected.parameters()), "the scheduler's rates are not those of the steps")


@pytest.mark.environment("functional_call and torch.func.grad")
@CASES
def test_functional_call(name: str, mode: dict[str, Any]) -> None:
    """Gradients that a function transform gives are as good as those of `backward`."""
    model = network()
    params = dict(model.named_parameters())
    optimizer = maker(name, lr=LR)(params.items(), **mode)

    def loss(weights: dict[str, Tensor], step: int) -> Tensor:
        return loss_of(lambda inputs: torch.func.functional_call(model, weights, inputs), step)

    for step in range(STEPS):
        for key, grad in torch.func.grad(loss)(params, step).items():
            params[key].grad = grad
        optimizer.step()
    ends(model, plainly(name, mode), "gradients of torch.func are other ones")


@pytest.mark.environment("swap_in_optimizer_params_and_state")
@CASES
def test_swapped_in(name: str, mode: dict[str, Any]) -> None:
    """While other parameters and state are swapped in, the step is of these alone; then training goes on."""
    stateless = pytest.importorskip("torch.optim._stateless", reason="torch does not have it yet")
    model = network()
    optimizer = maker(name, lr=LR)(model.parameters(), **mode)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        if step == 2:
            others = {key: nn.Parameter(it.detach().clone()) for key, it in model.named_parameters()}
            for other, param in zip(others.values(), model.parameters(), strict=True):
                other.grad = None if param.grad is None else param.grad.clone()
            before, saved = values(model.parameters()), optimizer.state_dict()
            saved["state"] = {
                key: {entry: value.clone() for entry, value in state.items()} for key, state in saved["state"].items()
            }
            with stateless.swap_in_optimizer_params_and_state(optimizer, others, saved):
                optimizer.step()
            ends(model, before, "the step was taken on the parameters that are not swapped in")
        optimizer.step()
        if step == 2:
            ends(model, values(others.values()), "the swapped-in parameters were updated otherwise")
    ends(model, plainly(name, mode), "training has not gone on as before")


@pytest.mark.environment("threads")
@CASES
def test_threads(name: str, mode: dict[str, Any]) -> None:
    """Optimizers in threads of one process do not touch one another, from the first step of the first on."""
    models = [network() for _ in range(3)]
    together = threading.Barrier(len(models))
    failed: list[BaseException] = []

    def train(model: nn.Module) -> None:
        try:
            optimizer = maker(name, lr=LR)(model.parameters(), **mode)
            for step in range(STEPS):
                together.wait(60)
                optimizer.zero_grad()
                loss_of(model, step).backward()
                optimizer.step()
        except BaseException as error:
            failed.append(error)
            together.abort()

    threads = [threading.Thread(target=train, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for model in models:
        ends(model, plainly(name, mode), "an optimizer of another thread has changed something")


@pytest.mark.parametrize("name", list(pa.MEMBERS))
def test_cycles_of_the_momentum(name: str) -> None:
    """`OneCycleLR` moves what it takes for the momentum; where there is none it says so, as of torch's Adagrad."""
    optimizer = maker(name)(network().parameters())
    cycles = {"max_lr": 0.1, "total_steps": 4}
    if {"momentum", "betas"} & optimizer.defaults.keys():
        torch.optim.lr_scheduler.OneCycleLR(optimizer, **cycles)
        return
    for it in (optimizer, torch.optim.Adagrad(network().parameters())):
        with pytest.raises(ValueError, match="optimizer must support momentum or beta1"):
            torch.optim.lr_scheduler.OneCycleLR(it, **cycles)
        torch.optim.lr_scheduler.OneCycleLR(it, **cycles, cycle_momentum=False)
