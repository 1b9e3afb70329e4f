"""Foreach on the CPU for small tensors: many of them as one, in memory that is lent for the length of a step."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from partial_adaptive.execution.staging import Land, Row

LARGEST = 4096  # elements of a tensor for which copying costs less than one more call of each operation
ROOM = 2**18  # bytes of a joined tensor: with the others of its row it stays in the cache


def is_small(row: Row) -> bool:
    """Whether a plain row is worth joining: small, and in the usual order in memory."""
    return (
        row.param.numel() <= LARGEST
        and row.param.is_cpu
        and all(tensor.is_contiguous() and tensor.shape == row.param.shape for tensor in row.tensors)
    )


class Joined:
    """Memory for small rows of one dtype, and the place in it for each.

    Every state tensor owns its memory, so that it can be saved, moved and replaced by itself; what is here is copies.

    Args:
        positions: which rows.
        columns: "param", "grad" and the slots of all rows, of which the shapes are taken.
    """

    def __init__(self, positions: Sequence[int], columns: Mapping[str, Sequence[Tensor]]) -> None:
        self.positions = positions
        params = [columns["param"][i] for i in positions]
        chunks: list[list[int]] = []
        size = 0
        for i, param in zip(positions, params, strict=True):
            if not chunks or size + param.nbytes > ROOM:
                chunks.append([])
                size = 0
            chunks[-1].append(i)
            size += param.nbytes
        longest = max(sum(columns["param"][i].numel() for i in chunk) for chunk in chunks)
        room = {name: torch.empty(longest, dtype=params[0].dtype, device="cpu") for name in columns}
        self._chunks = [(chunk, *_places(room, [columns["param"][i] for i in chunk])) for chunk in chunks]

    def rows(self, columns: Mapping[str, Sequence[Tensor]]) -> Iterator[tuple[Row, Land]]:
        """The rows as few large ones, each with what brings the result home before the next one is asked for."""
        for chunk, flat, places in self._chunks:
            tensors = {name: [column[i] for i in chunk] for name, column in columns.items()}
            for name, column in tensors.items():
                torch._foreach_copy_(places[name], column)

            def land(tensors: dict[str, list[Tensor]] = tensors, places: dict[str, list[Tensor]] = places) -> None:
                for name, column in tensors.items():
                    if name != "grad":
                        torch._foreach_copy_(column, places[name])

            slots = dict(flat)
            yield Row(slots.pop("param"), slots.pop("grad"), slots), land


def _places(room: Mapping[str, Tensor], params: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
    """For each column the part of the room that these parameters fill, and the view of it that belongs to each."""
    sizes = [param.numel() for param in params]
    flat = {name: tensor[: sum(sizes)] for name, tensor in room.items()}
    places = {
        name: [part.view(param.shape) for part, param in zip(tensor.split(sizes), params, strict=True)]
        for name, tensor in flat.items()
    }
    return flat, places
