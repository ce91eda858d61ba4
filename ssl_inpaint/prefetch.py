"""The next few batches, made by threads while a step is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor

from ssl_inpaint.batches import Batches
from ssl_inpaint.core import Batch
from ssl_inpaint.runtime import Runtime


@contextmanager
def prefetched(
    batches: Batches, steps: range, workers: int, parts: int, runtime: Runtime
) -> Iterator[Iterator[list[Batch]]]:
    """This process's parts of the batches of those steps in order, the next few made by threads meanwhile."""
    pool = ThreadPoolExecutor(max(1, workers))

    def made(step: int) -> list[Batch]:
        found = [batches.at(step, part, parts) for part in runtime.group.share(parts)]
        return [_pinned(batch) for batch in found] if runtime.device.type == "cuda" else found

    def upcoming() -> Iterator[list[Batch]]:
        waiting: deque[Future[list[Batch]]] = deque()
        for step in steps:
            waiting.append(pool.submit(made, step))
            if len(waiting) > 2 * max(1, workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield upcoming()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pinned(batch: Batch) -> Batch:
    """The batch in memory that a GPU reads by itself, while the next step is prepared."""

    def pinned(tensor: Tensor) -> Tensor:
        return tensor if tensor.is_cuda else tensor.pin_memory()

    features = batch.features
    return replace(
        batch,
        images=pinned(batch.images),
        labels=None if batch.labels is None else pinned(batch.labels),
        features=None if features is None else {name: pinned(maps) for name, maps in features.items()},
    )
