"""Several GPUs: ``torchrun --nproc-per-node 4 --no-python deblurd-train fit --device cuda ...`` starts a process for each.

Each process degrades and learns from examples of its own; after each step they share their gradients in one message, and so their weights stay equal.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from deblurd.errors import UsageError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """The one that validates, saves and speaks."""
        return self.rank == 0

    @torch.no_grad()
    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean over all processes in the place of each gradient; a sub-model that had no examples here counts as zero."""
        if self.count == 1:
            return
        own = list(parameters)
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in own])
        dist.all_reduce(flat)
        flat /= self.count
        for parameter, part in zip(own, torch.split(flat, [p.numel() for p in own]), strict=True):
            parameter.grad = part.view_as(parameter)


ALONE = Ranks()


def join(device: torch.device) -> tuple[Ranks, torch.device]:
    """Join the processes that torchrun started, or be alone; with the device that is this process's own."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE, device
    if device.type == "cuda":
        if device.index is not None:
            raise UsageError(
                f"torchrun gives each process a GPU of its own: say --device cuda, not {device}."
            )
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), count), device


def leave() -> None:
    """Part from the others; nothing if alone."""
    if dist.is_initialized():
        dist.destroy_process_group()
