"""What is remembered between two steps, and what shares memory: only how tensors look, and only what was looked at."""

import gc
import weakref
from array import array
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from family import CAPTURABLE, maker
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive import Padam
from partial_adaptive.execution import plan, snapshot
from partial_adaptive.execution.compiled.triton import Mail
from partial_adaptive.execution.sharing import Sharing
from partial_adaptive.testing.harness import MODES, default_dtype, gradient, parameters, same, train, values

ALL_MODES: list[dict[str, Any]] = [*MODES, {"differentiable": True}, {"foreach": True, "capturable": True}, {}]


@pytest.fixture
def _wide_counts() -> Iterator[None]:
    """Step counts in float64, so that those of `capturable` are as exact as Python's."""
    with default_dtype(torch.float64):
        yield


def test_sharing() -> None:
    """No two of a round share memory, and each comes after those before it that it meets, by where they are now."""
    memory = torch.zeros(16)
    apart = [memory[:4], memory[4:8], memory[8:]]
    meeting = [memory[:4], memory[2:6], memory[8:12], memory[5:9], memory[12:]]
    elsewhere, none = array("q", [4096] * 5), array("q")
    for params, expected in ((apart, [[0, 1, 2]]), (meeting, [[0, 2, 4], [1], [3]])):
        sharing = Sharing(params)
        sharing.look(array("q", [param.data_ptr() for param in params]), elsewhere[: len(params)], none)
        assert [list(found) for found in sharing.rounds] == expected
    sharing = Sharing([memory[:4], memory[4:8]])
    for places, rounds in (([64, 80], 1), ([64, 76], 2), ([64, 80], 1)):
        for grads, aliased in (([160, 176], []), ([64, 160], [0]), ([160, 64], [1]), ([160, 176], [])):
            for slots, doubled in (([1, 2, 3], None), ([1, 2, 1], 2), ([1, 64, 3], 1), ([0, 0], None), ([1, 2], None)):
                sharing.look(array("q", places), array("q", grads), array("q", slots))
                assert len(sharing.rounds) == rounds
                assert list(sharing.aliased) == aliased
                assert sharing.doubled == doubled


@pytest.mark.usefixtures("_wide_counts")
@pytest.mark.parametrize("mode", [*MODES, {"foreach": True, "capturable": True}], ids=str)
def test_parameters_that_share_memory(mode: dict[str, Any]) -> None:
    """Views of one tensor that overlap are updated one after the other in every mode, as a loop does it."""
    results = []
    for options in ({"foreach": False}, mode):
        memory = torch.linspace(-1, 1, 24, dtype=torch.float64)
        params = [memory[:8], memory[4:12], memory[12:].view(3, 4), memory[13:14], memory[0]]
        train(Padam(params, weight_decay=0.1, **options))
        results.append(memory)
    same([results[1]], [results[0]], f"{mode} is not what a loop does", 1e-12)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_gradient_in_the_memory_of_a_parameter(mode: dict[str, Any]) -> None:
    """A gradient that lies where a parameter does is read before that is written."""
    first, second = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    optimizer = Padam([first, second], **mode)
    first.grad, second.grad = torch.ones(3, dtype=torch.float64), first
    optimizer.step()
    same([second], [torch.full((3,), -0.1, dtype=torch.float64)], "the gradient had become the parameter", 1e-6)


# -- what is remembered


@pytest.mark.parametrize("guards", [True, False])
def test_snapshot(monkeypatch: pytest.MonkeyPatch, guards: bool) -> None:
    """Tensors look the same in class, dtype, device, shape, strides, layout and lazy bits, or they are told apart."""
    if not guards:
        monkeypatch.setattr(snapshot, "_GUARDS", None)
    x = torch.ones(2, 3)
    look = snapshot.Snapshot([x, torch.ones(2, 3)])
    for other in (torch.zeros(2, 3), torch.zeros(4, 3)[1:3]):
        assert look.holds([x, other])
    for other in (
        Parameter(x),
        x.double(),
        x.to("meta"),
        torch.ones(3, 2),
        torch.ones(3, 2).t(),
        torch.ones(2, 6)[:, ::2],
        x.to_sparse(),
        torch.ones(6),
        torch.ones(2, 3, dtype=torch.complex64).conj().imag,
        torch._efficientzerotensor((2, 3)),
    ):
        assert not look.holds([x, other]), f"{torch.typename(other)} of {other.dtype} and {tuple(other.shape)} passed"
    assert not look.holds([x])
    assert not look.holds([x, torch.ones(2, 3), torch.ones(3)])
    complex_ = torch.ones(3, dtype=torch.complex64)
    assert not snapshot.Snapshot([complex_]).holds([complex_.conj()])


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_nothing_is_kept_alive(mode: dict[str, Any]) -> None:
    """No cache owns a gradient, a removed parameter or outgrown state."""
    params = parameters()
    optimizer = Padam(params, **mode)
    train(optimizer, 2)
    watched = [weakref.ref(param.grad) for param in params]
    watched += [weakref.ref(optimizer.state[param]["exp_avg"]) for param in params[:2]]
    watched += [weakref.ref(params[0])]
    for param in params:
        param.grad = None
    optimizer.state[params[1]]["exp_avg"] = torch.zeros_like(params[1])
    del optimizer.state[params[0]], optimizer.param_groups[0]["params"][0], params[0], param
    gc.collect()
    assert [ref() for ref in watched] == [None] * len(watched)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_what_a_capture_has_read_is_kept(monkeypatch: pytest.MonkeyPatch, mode: dict[str, Any]) -> None:
    """A CUDA graph reads and writes its memory at every replay: it lives as long as the optimizer, whatever happens."""
    params = parameters()
    optimizer = Padam(params, capturable=True, **mode)
    train(optimizer, 2)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        patch.setattr(plan, "is_capturing", lambda device: True)
        optimizer.step()
    watched = [weakref.ref(param.grad) for param in params]
    watched += [weakref.ref(value) for state in optimizer.state.values() for value in state.values()]
    train(optimizer, 1)
    optimizer.load_state_dict(optimizer.state_dict())
    train(optimizer, 1)
    optimizer.add_param_group({"params": parameters([(2,)])})
    train(optimizer, 1)
    optimizer.state.clear()
    gc.collect()
    assert all(ref() is not None for ref in watched)
    del optimizer
    gc.collect()
    assert all(ref() is None for ref in watched)


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
def test_the_default_device_is_not_the_optimizers(mode: dict[str, Any]) -> None:
    """Everything is made where the parameters are, or on the CPU, wherever the user makes new tensors."""
    results = []
    for device in ("cpu", "meta"):
        params = [param.detach() for param in parameters()]
        with torch.device(device):
            optimizer = Padam(params, weight_decay=0.1, **mode)
            for step in range(3):
                for i, param in enumerate(params):
                    with torch.device("cpu"):
                        param.grad = gradient(param, step, i)
                    scale = optimizer.scale_of(param)
                    assert scale is not None
                    assert scale.is_cpu
                optimizer.step()
                optimizer.load_state_dict(optimizer.state_dict())
        results.append(values((*params, *(value for state in optimizer.state.values() for value in state.values()))))
    same(results[1], results[0], f"a default device has changed the training ({mode})")


def test_mail() -> None:
    """What is sent during a capture is new, belongs to the graph and is not taken for sent by a later step."""
    captured: list[Any] = []
    with torch.device("meta"):
        mail = Mail(2, torch.int64, torch.device("cpu"), captured)
        first = mail.send([1, 2**31 + 5], capturing=False)
    assert first.tolist() == [1, 2**31 + 5]
    assert mail.send([1, 2**31 + 5], capturing=False) is first
    graphs = [mail.send([3, 4], capturing=True) for _ in range(3)]
    assert len({graph.data_ptr() for graph in graphs}) == 3
    assert all(any(kept is graph for kept in captured) for graph in graphs)
    after = mail.send([3, 4], capturing=False)
    assert after.tolist() == [3, 4]
    assert all(after is not graph for graph in graphs)
    assert mail.send([5, 6], capturing=False).tolist() == [5, 6]
    assert all(graph.tolist() == [3, 4] for graph in graphs)


@pytest.mark.parametrize("mode", CAPTURABLE, ids=str)
def test_a_checkpoint_loaded_between_steps_at_p_0(mode: dict[str, Any]) -> None:
    """The second moment's count begins where a checkpoint that has none was loaded, not where p leaves 0."""
    counts = []
    for stepped in (False, True):
        (param,) = parameters([(3, 2)])
        amsgrad = torch.optim.Adam([param], amsgrad=True)
        for step in range(5):
            param.grad = gradient(param, step)
            amsgrad.step()
        optimizer = pa.Padam([param], partial=0.0, **mode)
        if stepped:
            train(optimizer, steps=3)
        checkpoint = amsgrad.state_dict()
        checkpoint["param_groups"][0] |= {"foreach": None, "fused": None, "capturable": False, **mode}
        optimizer.load_state_dict(checkpoint)
        train(optimizer, steps=4)
        optimizer.param_groups[0]["partial"] = 0.125
        train(optimizer, steps=1)
        counts.append((optimizer.state[param]["step"].item(), optimizer.state[param]["estimator_step"].item()))
    assert counts == [(10, 6), (10, 6)]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("name", pa.MEMBERS)
def test_the_count_taken_out_at_p_0(name: str, at_once: bool) -> None:
    """Of a second moment that has seen nothing the count starts afresh, and a checkpoint of it loads."""
    params = parameters()
    optimizer = maker(name, partial=0.0)(params)
    train(optimizer, steps=2)
    for param in params:
        del optimizer.state[param]["estimator_step"]
    if not at_once:
        train(optimizer, steps=1)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.param_groups[0]["partial"] = 0.25
    train(optimizer, steps=1)
    if optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).second_moment.slots:
        assert all(optimizer.state[param]["estimator_step"] == 1 for param in params)
