"""The training loop that every network shares: schedule, validation, early stopping, resume, and the same bytes for the same seed.

Everything random in step k comes from (seed, k), so a run that was stopped goes on as if it had not been. The number of steps is fixed
when training begins: given, or what fits into the minutes at the pace of the first steps, or the task's default. Steps, seed and thread
count give the weights again; minutes alone do not, because they depend on the machine's load.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inspector.records import ConfigError

PACE_STEPS = 24
"""So many steps are timed before the number of steps is fixed; the first half of them warms up."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained. `batch(random)` makes one batch; `loss(network, batch)` its loss; `score(network)` the validation figures, of
    which "score" is to become large. `rate` is the highest learning rate, `decay` the weight decay.
    """

    network: nn.Module
    batch: Callable[[np.random.Generator], tuple[Tensor, ...]]
    loss: Callable[[nn.Module, tuple[Tensor, ...]], Tensor]
    score: Callable[[nn.Module], dict[str, float]]
    rate: float = 2e-3
    decay: float = 1e-2
    default_steps: int = 2000


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long: `steps`, or `minutes`, or the task's default. `looks` validations; `patience` of them without a better score end it."""

    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    looks: int = 20
    patience: int = 8


@dataclass(slots=True)
class History:
    """What became of the training so far: losses of every step, (step, figures) of every look, best score and its step."""

    total_steps: int = 0
    losses: list[float] = field(default_factory=list)
    looks: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    best: float = -math.inf
    best_step: int = 0
    spent_s: float = 0.0


def has_bfloat16() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 (AMX, up to three times as fast; without it float32 is faster)."""
    try:
        flags = Path("/proc/cpuinfo").read_text("ascii", "ignore")
    except OSError:
        return False
    return "amx_bf16" in flags


def fit(task: Task, schedule: Schedule, checkpoint: Path, identity: str, say: Callable[[str], None], *, threads: int = 2) -> History:
    """Train `task.network` in place; at the end it holds the weights (averaged over the last steps) of the best look.

    `checkpoint` is written at each look and read when it is there and its `identity` (data, settings, seed) is the same; it stays when the
    process is stopped, and its owner deletes it once the model is saved. Raises E_TRAIN_NAN where loss or score is not finite.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(schedule.seed)
    network = task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=task.rate, weight_decay=task.decay)
    history, step, best = History(), 0, copy.deepcopy(mean.state_dict())
    saved = _read(checkpoint, identity)
    if saved is not None:
        network.load_state_dict(saved["network"])
        mean.load_state_dict(saved["mean"])
        optimiser.load_state_dict(saved["optimiser"])
        best, step, history = saved["best"], saved["step"], History(**saved["history"])
        say(f"resumed at step {step} of {history.total_steps}")
    bfloat16, begun, before = has_bfloat16(), time.monotonic(), history.spent_s
    if history.total_steps == 0:
        history.total_steps = schedule.steps or (PACE_STEPS if schedule.minutes else task.default_steps)
    fixed = schedule.minutes is None or saved is not None
    look_every = max(1, history.total_steps // schedule.looks)
    paced = 0.0
    while step < history.total_steps:
        for group in optimiser.param_groups:
            group["lr"] = task.rate * _rate(step, history.total_steps if fixed else 1 << 30)
        torch.manual_seed(schedule.seed * 1_000_003 + step)
        network.train()
        batch = task.batch(np.random.default_rng((schedule.seed, step)))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = task.loss(network, batch)
        if not math.isfinite(float(loss.detach())):
            raise ConfigError("E_TRAIN_NAN", f"the loss is not finite at step {step}; look at the data, or train with another seed")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        step += 1
        history.losses.append(float(loss.detach()))
        _follow(mean, network, min(0.998, (1 + step) / (10 + step)))
        if not fixed and step == PACE_STEPS // 2:
            paced = time.monotonic()
        if not fixed and step == PACE_STEPS:
            pace_s = (time.monotonic() - paced) / (PACE_STEPS - PACE_STEPS // 2)
            look_s = _seconds(lambda: task.score(mean))
            left_s = 60.0 * float(schedule.minutes or 0) - (time.monotonic() - begun) - schedule.looks * look_s
            history.total_steps = step + max(PACE_STEPS, int(left_s / pace_s))
            look_every, fixed = max(1, history.total_steps // schedule.looks), True
            say(f"{pace_s * 1e3:.0f} ms a step: {history.total_steps} steps (the same with --steps {history.total_steps})")
        if fixed and (step % look_every == 0 or step == history.total_steps):
            history.spent_s = before + time.monotonic() - begun
            figures = task.score(mean)
            if not math.isfinite(figures["score"]):
                raise ConfigError("E_TRAIN_NAN", f"the score is not finite at step {step}; look at the data")
            history.looks.append((step, figures))
            if figures["score"] > history.best:
                history.best, history.best_step, best = figures["score"], step, copy.deepcopy(mean.state_dict())
            shown = " ".join(f"{name} {value:.4f}" for name, value in figures.items())
            say(f"step {step}/{history.total_steps} loss {np.mean(history.losses[-look_every:]):.4f} {shown}")
            _write(checkpoint, identity, network, mean, optimiser, best, step, history)
            if step - history.best_step >= schedule.patience * look_every:
                say(f"no better for {schedule.patience} looks: stopped")
                break
            if schedule.minutes is not None and history.spent_s > 66.0 * schedule.minutes:
                say("the machine has become slower, and the minutes are over: stopped")
                break
    history.spent_s = before + time.monotonic() - begun
    network.load_state_dict(best)
    network.eval()
    return history


def _rate(step: int, total: int) -> float:
    """The learning rate as a ratio of the highest: 50 steps up (or a tenth), then a cosine down to 1 %."""
    rise = max(1, min(50, total // 10))
    if step < rise:
        return (step + 1) / rise
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


@torch.no_grad()
def _follow(mean: nn.Module, network: nn.Module, keep: float) -> None:
    """Move the averaged weights towards the network's; counters are taken over."""
    for name, value in network.state_dict().items():
        mine = mean.state_dict()[name]
        if mine.is_floating_point():
            mine.mul_(keep).add_(value, alpha=1 - keep)
        else:
            mine.copy_(value)


def _seconds(act: Callable[[], Any]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def _write(path: Path, identity: str, network: nn.Module, mean: nn.Module, optimiser: Any, best: Any, step: int, history: History) -> None:
    """The checkpoint, whole or not at all."""
    state = {
        "identity": identity,
        "network": network.state_dict(),
        "mean": mean.state_dict(),
        "optimiser": optimiser.state_dict(),
        "best": best,
        "step": step,
    }
    state["history"] = {name: getattr(history, name) for name in History.__slots__}
    aside = path.with_suffix(".part")
    with aside.open("wb") as file:  # given a path, PyTorch hides what the disk says
        torch.save(state, file)
    aside.replace(path)


def _read(path: Path, identity: str) -> dict[str, Any] | None:
    """The checkpoint where it is of the same training; anything else is as if there were none."""
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, UnpicklingError) as error:
        raise ConfigError(
            "E_TRAIN_RESUME", f"the checkpoint is damaged ({type(error).__name__}); delete it to begin anew", file=str(path)
        ) from error
    return state if state.get("identity") == identity else None
