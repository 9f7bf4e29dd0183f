"""What a run looks after: where a number stopped being one, memory that was not enough, a trace of what takes time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m2vsl.localizer import Localizer
from m2vsl.types import Batch

UNTRACED = 2  # steps before a trace: they are slower than those that follow


def first_broken(localizer: Localizer, batch: Batch) -> str:
    """Where the forward pass of `batch` first makes a number that is none: the name of a weight, a part, or a loss."""
    inputs = [name for name in ("image", "spectrogram", "heard", "labels") if not _finite(getattr(batch, name))]
    weights = [name for name, value in localizer.named_parameters() if not _finite(value)]
    if inputs or weights:
        return f"{inputs[0]} of the data" if inputs else f"the weights {weights[0]}"
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, out: Any) -> None:
            if not all(_finite(value) for value in (out if isinstance(out, (tuple, list)) else [out])):
                found.append(name)

        return hook

    leaves = [(name, part) for name, part in localizer.named_modules() if name and not list(part.children())]
    handles = [part.register_forward_hook(look(name)) for name, part in leaves]
    gather, localizer.gather = localizer.gather, False  # the others may not look
    try:
        with torch.no_grad():
            localizer(batch)
    finally:
        localizer.gather = gather
        for handle in handles:
            handle.remove()
    return f"the output of {found[0]}" if found else "the loss itself"


def keep(batch: Batch, path: Path) -> Path:
    """`batch` as a file of plain tensors, ``torch.load(path, weights_only=True)``, to look at afterwards."""
    fields = ("image", "spectrogram", "heard", "seen", "labels", "mixture")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**{name: getattr(batch, name).cpu() for name in fields}, "keys": list(batch.keys)}, path)
    return path


@contextmanager
def enough_memory(batch: Batch) -> Iterator[None]:
    """MemoryError with what to lower, where torch could not get memory for `batch`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not _of_memory(error):
            raise
        size = "x".join(map(str, batch.image.shape[-2:]))
        raise MemoryError(
            f"out of memory with {len(batch)} pictures of {size} in a process: lower train.batch_size or data.size, "
            f"take train.precision=bf16, or share the batch among more processes ({str(error).splitlines()[0]})"
        ) from error


def peak_bytes() -> int:
    """The most memory that was in use: of the GPU by torch, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Trace:
    """Of some steps of a run, after the first ones: ``trace.json``, for chrome://tracing or Perfetto. 0 = none."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.steps, self.left, self.path = steps, steps + UNTRACED if steps else 0, folder / "trace.json"
        self.profiler: torch.profiler.profile | None = None

    def step(self) -> None:
        """A step begins."""
        if self.left == 0:
            return
        if self.left == self.steps:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            kinds += [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self.profiler = torch.profiler.profile(activities=kinds, record_shapes=True, acc_events=True)
            self.profiler.start()
        self.left -= 1

    def close(self) -> None:
        """The last of its steps has ended; write it."""
        if self.profiler is not None and self.left == 0:
            self.profiler.stop()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.profiler.export_chrome_trace(str(self.path))
            self.profiler = None


def _finite(value: Any) -> bool:
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(value.isfinite().all())


def _of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
