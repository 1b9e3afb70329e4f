"""Distributed tensors: how they are placed, whole ones of them, and the way home; numbers of all processes."""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution.staging import local, locals_of

Columns = Mapping[str, list[Tensor]]
Layouts = Mapping[str, list[Any]]


def is_distributed(tensor: Any) -> bool:
    """Whether it is a DTensor, of which each process has a part."""
    return hasattr(type(tensor), "placements")


def _any_distributed(tensors: Iterable[Tensor]) -> bool:
    return any(hasattr(kind, "placements") for kind in {*map(type, tensors)})


def is_partial(tensor: Any) -> bool:
    """Whether it is sums that are still to be taken over the processes."""
    return is_distributed(tensor) and any(placement.is_partial() for placement in tensor.placements)


def is_flattened(param: Tensor) -> bool:
    """Whether FullyShardedDataParallel has made a vector of it, of which the shape is nobody's."""
    return param.ndim == 1 and getattr(param, "_fsdp_flattened", False)


def layout_of(tensor: Any) -> tuple[Any, Any] | None:
    """The mesh that a tensor is distributed over, and how it is placed there; None for any other."""
    return (tensor.device_mesh, tensor.placements) if is_distributed(tensor) else None


def layouts_of(columns: Columns) -> Layouts:
    """The layouts of all tensors."""
    try:
        return {name: [*map(_LAYOUT, column)] for name, column in columns.items()}
    except AttributeError:
        return {name: [*map(layout_of, column)] for name, column in columns.items()}


_LAYOUT = attrgetter("device_mesh", "placements")


def placed(params: Sequence[Tensor], grads: list[Tensor], *, differentiable: bool = False) -> list[Tensor]:
    """The gradients, those that are placed otherwise than their parameters placed as these are; nothing is changed."""
    if not _any_distributed(grads):
        return grads
    with torch.set_grad_enabled(differentiable):
        return [*map(_placed, params, grads)]


def _placed(param: Any, grad: Any) -> Any:
    ours, theirs = layout_of(param), layout_of(grad)
    if ours is None or theirs is None or ours == theirs or ours[0] != theirs[0] or is_partial(param):
        return grad
    return grad.redistribute(placements=param.placements)


def local_columns(columns: Columns) -> dict[str, list[Tensor]]:
    """The local parts of distributed tensors; any other is itself."""
    return {name: locals_of(column) for name, column in columns.items()}


def gathered(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Whole plain tensors of distributed ones, any other is itself; all collectives are under way at once.

    They are taken one after the other where autograd is on, which runs through them, and on the CPU: of several that
    gloo had under way, waiting for one has freed memory twice (torch 2.14, in one of some thousand steps).
    """
    return [*map(local, [*map(_gathering, tensors)])]


def _gathering(tensor: Any) -> Any:
    if not is_distributed(tensor):
        return tensor
    at_once = not torch.is_grad_enabled() and tensor.device.type != "cpu"
    return tensor.redistribute(placements=_replicated(tensor), async_op=at_once)


def bring_home(whole: Tensor, target: Any) -> None:
    """Copy from a whole tensor, which is the same in all processes, what is here of a distributed one."""
    if whole is not target:
        target.copy_(scattered(whole, target))


def scattered(whole: Tensor, like: Any) -> Tensor:
    """A whole tensor, which is the same in all processes, placed as another one is; without communication."""
    if not is_distributed(like):
        return whole
    from torch.distributed.tensor import DTensor

    everywhere = DTensor.from_local(whole, like.device_mesh, _replicated(like), run_check=False)
    return everywhere.redistribute(placements=like.placements)


def of_parts(part: Tensor, like: Any, shape: torch.Size | None = None) -> Tensor:
    """The tensor of which each process has a part, placed as another one is, and of its shape if none is given."""
    if not is_distributed(like):
        return part
    from torch.distributed.tensor import DTensor

    shape = like.shape if shape is None else shape
    strides = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(part, like.device_mesh, like.placements, run_check=False, shape=shape, stride=strides)


def summed(numbers: Tensor, like: Any) -> Tensor:
    """Sums over what is here of a tensor, as sums over all of it."""
    if not is_distributed(like):
        return numbers
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh = like.device_mesh
    parts = [Replicate() if placement.is_replicate() else Partial() for placement in like.placements]
    return DTensor.from_local(numbers.to(mesh.device_type), mesh, parts, run_check=False).full_tensor()


def agreed(flag: Tensor, params: Iterable[Any]) -> Tensor:
    """The largest value of a flag among the processes that distributed parameters are spread over.

    That takes one reduction for each dimension of each mesh. All processes must come here with the same parameters,
    whether these have gradients or not.
    """
    params = [*params]
    if not _any_distributed(params):
        return flag
    from torch.distributed.tensor import DTensor, Partial, Replicate

    meshes = dict.fromkeys(param.device_mesh for param in params if is_distributed(param))
    for mesh in sorted(meshes, key=lambda mesh: mesh.ndim):  # wide ones last: they see what narrow ones have found
        if mesh.get_coordinate() is not None:
            flag = flag.to(mesh.device_type)
            for dim in range(mesh.ndim):  # one by one: of several at once torch warns that sums of them could differ
                placements = [Partial("max") if other == dim else Replicate() for other in range(mesh.ndim)]
                flag = DTensor.from_local(flag, mesh, placements, run_check=False).full_tensor()
    return flag


def _replicated(tensor: Any) -> list[Any]:
    from torch.distributed.tensor import Replicate

    return [Replicate()] * tensor.device_mesh.ndim
