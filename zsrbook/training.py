"""The one training loop: device, precision, early stopping, resuming, progress, several processes.

A network is any ``nn.Module`` whose call on a batch gives ``(loss summed over targets, number of targets)``. Batches come
from a function of the epoch, so that epoch 7 is the same whether or not epochs 0 to 6 ran in this process: together with
the seeds drawn anew each epoch, a run that was killed and resumed ends where an unbroken run ends.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from zsrbook.audience import watched
from zsrbook.cache import write_whole
from zsrbook.data.dataset import DataError


@dataclass(frozen=True)
class Training:
    """How to train. The defaults are the ZESRec paper's where it speaks (section 4.3), and ours where it is silent."""

    epochs: int = 20  #: at most; paper
    optimizer: Literal["adagrad", "adam"] = "adagrad"  #: paper
    learning_rate: float = 0.1  #: paper
    eps: float = 1e-3  #: of Adagrad; with PyTorch's 1e-10 the first steps at rate 0.1 are of size 0.1 in every weight
    accumulator: float = 0.0  #: at which Adagrad's sums of squared gradients begin; PyTorch says 0, TensorFlow 0.1
    clip: float | None = 1.0  #: largest gradient norm of a step; None: any
    patience: int | None = 4  #: stop after this many epochs without a better validation loss; None: run all epochs
    precision: Literal["float32", "bfloat16", "auto"] = "float32"  #: of matrix products; auto: bfloat16 where the device has it in hardware
    device: str = "auto"  #: cuda if there is one, else cpu
    seed: int = 0

    def __post_init__(self) -> None:
        check_words(self, "training settings")


#: metadata of a setting that came after runs were recorded: records hold it only where it is not at its default, so that those from before
#: are known as runs of the settings of now
LATER = {"later": True}


def check_words(settings: object, what: str) -> None:
    """Hold each setting that is one of a few words against these words, before anything runs.

    Raises:
        ValueError: it is none of them.
    """
    for name, kind in get_type_hints(type(settings)).items():
        if get_origin(kind) is Literal and getattr(settings, name) not in get_args(kind):
            raise ValueError(f"{what}: {name} is {getattr(settings, name)!r}; expected one of {', '.join(get_args(kind))}")


def pick_device(asked: str = "auto") -> torch.device:
    """``cuda`` if asked for, or if ``auto`` and there is one; else ``cpu``."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked)


def has_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 run in hardware there, and so faster than in float32.

    Of processors those with matrix tiles (AMX). Where there are only vector instructions for it (AVX-512 BF16), a product can take twice
    as long as in float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def runs_in(precision: str, device: torch.device) -> str:
    """The precision that comes of what ``Training`` asks for: ``float32`` or ``bfloat16``."""
    return ("bfloat16" if has_bfloat16(device) else "float32") if precision == "auto" else precision


def process_count() -> int:
    """How many processes this run has: one, unless started by ``accelerate launch`` (GPUs) or ``torchrun`` (GPUs or CPUs)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class Processes:
    """The processes of one run.

    Gradients are summed over processes by hand rather than by a wrapper around the network: each process takes its share of
    every batch, sums the loss over its own targets, and the sum is divided by the targets of the whole batch. So the step
    is that of one process, whatever their number.
    """

    def __init__(self):
        self.count = process_count()
        self.rank = 0
        if self.count > 1:
            from accelerate import PartialState

            self.rank = PartialState(cpu=not torch.cuda.is_available()).process_index

    def sum(self, value: Tensor) -> Tensor:
        if self.count > 1:
            torch.distributed.all_reduce(value)
        return value

    def sum_gradients(self, network: nn.Module) -> None:
        if self.count > 1:
            for parameter in network.parameters():
                if parameter.requires_grad:
                    if parameter.grad is None:  # this process had no part of this batch
                        parameter.grad = torch.zeros_like(parameter)
                    torch.distributed.all_reduce(parameter.grad)


def train(
    network: nn.Module,
    batches: Callable[[int], Iterable[Any]],
    settings: Training,
    validate: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
    title: str = "training",
    shares: bool = True,
    of: Callable[[], dict[str, Any]] = dict,
) -> list[dict[str, float]]:
    """Train in place, leave the network at its best validation loss, and return the curve.

    Args:
        batches: epoch → the batches of that epoch; with several processes, the share of this one (the same number on each).
        validate: the loss that early stopping watches; None: run all epochs and keep the last.
        checkpoint: written after each epoch; if it is there, training goes on from it.
        shares: whether ``batches`` knows of several processes; False: each would get the whole of every batch, so there may be only one.
        of: gives what else makes this run what it is, such as the model's settings and a hash of its data; called where there is a checkpoint,
            which is of no use to another run.

    Returns:
        one row an epoch: ``epoch``, ``train`` and ``valid`` (mean loss a target), ``seconds``.

    Raises:
        FloatingPointError: the loss, in training or on validation, is no longer finite; says in which epoch, and what to turn down.
        DataError: the checkpoint was written under other settings or from other data, is damaged, or can't be written.
        ValueError: there is nothing to train on; or there are several processes, and no ``shares``.
    """
    if not shares and process_count() > 1:
        raise ValueError(
            f"{title}: {process_count()} processes were started, but this model does not share its work out, so each would do all of it; "
            "start it without accelerate launch or torchrun, in one process"
        )
    device = pick_device(settings.device)
    processes = Processes()
    low = runs_in(settings.precision, device) == "bfloat16"
    network.to(device)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizers = optimizers_of(network, settings)
    curve: list[dict[str, float]] = []
    best = {"loss": float("inf"), "state": _copy(network), "epoch": -1}
    asked = asdict(settings) | {name: value for name, value in (of() if checkpoint else {}).items() if name != "training"}  # which `settings` is
    if checkpoint and checkpoint.exists():
        saved = read_checkpoint(checkpoint, device)
        other = [f"{k} {saved['settings'].get(k)!r}, now {v!r}" for k, v in asked.items() if saved["settings"].get(k) != v]
        if other:
            raise DataError(f"{checkpoint} was written under other settings or from other data ({'; '.join(other)}); delete it to start anew")
        try:
            network.load_state_dict(saved["network"])
            for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise DataError(f"{checkpoint} holds another network than this one ({error}); delete it to start anew") from None
        curve, best = saved["curve"], saved["best"]
    with (
        _progress(title, settings.epochs, quiet=processes.rank > 0) as tell,
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        for epoch in range(len(curve), settings.epochs):
            if settings.patience is not None and validate and epoch - best["epoch"] > settings.patience:
                break
            torch.manual_seed((settings.seed * 1_000_003 + epoch) * 1_009 + processes.rank)
            began, total, count = time.perf_counter(), 0.0, 0
            network.train()
            for batch in batches(epoch):
                network.zero_grad(set_to_none=True)
                with torch.autocast(device.type, torch.bfloat16, enabled=low):
                    loss, targets = network(batch)
                sums = processes.sum(torch.stack([loss.detach().double(), torch.tensor(float(targets), dtype=torch.double, device=device)]))
                (loss / sums[1].to(loss.dtype)).backward()
                processes.sum_gradients(network)
                if settings.clip is not None:
                    clip_gradients(parameters, settings.clip)
                for optimizer in optimizers:
                    optimizer.step()
                total, count = total + sums[0], count + sums[1]
            if not count:
                raise ValueError(f"{title}: there is nothing to train on; epoch {epoch} has no batch, or none with a target")
            mean = finite(float(total / count), f"{title}: the training loss", epoch, settings)
            network.eval()
            judged = finite(validate(), f"{title}: the validation loss", epoch, settings) if validate else mean
            curve.append({"epoch": epoch, "train": mean, "valid": judged, "seconds": time.perf_counter() - began})
            if judged < best["loss"] or validate is None:
                best = {"loss": judged, "state": _copy(network), "epoch": epoch}
            tell(curve[-1])
            if checkpoint and processes.rank == 0:
                states = [optimizer.state_dict() for optimizer in optimizers]
                written = {"network": _copy(network), "optimizers": states, "curve": curve, "best": best, "settings": asked}
                try:
                    checkpoint.parent.mkdir(parents=True, exist_ok=True)
                    write_whole(checkpoint, lambda path, written=written: torch.save(written, path))  # a kill while writing leaves the last one
                except (OSError, RuntimeError) as error:  # the latter is how torch says that the disk is full
                    raise DataError(f"{checkpoint} can't be written ({error}); make room there: the run goes on from its last epoch") from error
    network.load_state_dict(best["state"])
    network.eval()
    return curve


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """
    Raises:
        DataError: it is damaged, or none that ``train`` wrote.
    """
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds, by where the file is damaged
        why = str(error).partition("\n")[0]
        raise DataError(f"{path} can't be read as a checkpoint ({why}); it is cut short or damaged; delete it to start anew") from None
    if not isinstance(saved, dict) or not {"network", "optimizers", "curve", "best", "settings"} <= saved.keys():
        raise DataError(f"{path} is no checkpoint of this book; delete it to start anew")
    return saved


def clip_gradients(parameters: list[nn.Parameter], length: float) -> None:
    """Shorten all gradients together to at most this length, also where the sum of their squares overflows.

    Recurrent networks get there: at GRU4Rec's rate of 0.1 lengths beyond 1e19 were seen in the first steps of HRNN. PyTorch's
    ``clip_grad_norm_`` takes such a length for infinite, and makes 0 of what is finite.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not norm.isfinite():
        largest = torch.stack([g.abs().max() for g in gradients]).max()
        for gradient in gradients:
            gradient.div_(largest).mul_(length)
        norm = torch.nn.utils.get_total_norm(gradients)
    torch.nn.utils.clip_grads_with_norm_(parameters, length, norm)


def finite(loss: float, what: str, epoch: int, settings: Training) -> float:
    """The loss itself.

    Raises:
        FloatingPointError: it is not finite; says in which epoch, and what to turn down.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(f"{what} is {loss} in epoch {epoch}; lower learning_rate ({settings.learning_rate}) or clip ({settings.clip})")
    return loss


def optimizers_of(network: nn.Module, settings: Training) -> list[torch.optim.Optimizer]:
    """What steps the network: one optimiser, and with Adam a second for embeddings whose gradients are sparse.

    The second moves the rows at hand alone, their moments included, so a step costs by the batch, not by the table; rows that are
    absent do not drift on as they would with a dense Adam.

    Raises:
        ValueError: gradients are to be clipped, and some are sparse.
    """
    rows = [m.weight for m in network.modules() if isinstance(m, nn.Embedding) and m.sparse]
    if rows and settings.clip is not None:
        raise ValueError(f"clip is {settings.clip}, but the norm of sparse gradients is not worked out; set clip=None or sparse=False")
    dense = [p for p in network.parameters() if p.requires_grad and all(p is not row for row in rows)]
    if settings.optimizer == "adagrad":  # sparse or not, it moves a weight only where there is a gradient
        return [torch.optim.Adagrad([*dense, *rows], settings.learning_rate, initial_accumulator_value=settings.accumulator, eps=settings.eps)]
    optimizers = [torch.optim.Adam(dense, settings.learning_rate, fused=True)]
    return [*optimizers, torch.optim.SparseAdam(rows, settings.learning_rate)] if rows else optimizers


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


@contextlib.contextmanager
def _progress(title: str, epochs: int, quiet: bool) -> Iterator[Callable[[dict[str, float]], None]]:
    """A bar with the last losses on a terminal or in a notebook; nothing where nobody watches (``CI``, books, tests)."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("epoch {task.completed}/{task.total}"), TimeElapsedColumn())
    with Progress(*columns, disable=quiet or not watched()) as bar:
        task = bar.add_task(title, total=epochs)
        yield lambda row: bar.update(task, completed=row["epoch"] + 1, description=f"{title}: loss {row['train']:.3f}, validation {row['valid']:.3f}")
