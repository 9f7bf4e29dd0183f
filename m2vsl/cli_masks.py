"""The commands about masks: ``data make-avsbench-like`` and ``ablate``. As thin as `m2vsl.cli`."""

from __future__ import annotations

import argparse
from pathlib import Path

from m2vsl.help import GROUPS, UsageError


def make_like(options: argparse.Namespace) -> None:
    """``data make-avsbench-like``: synthetic videos in the layout of AVSBench."""
    from m2vsl.data import avsbench_like

    place, how = Path(options.folder), {"size": options.size, "seed": options.seed}
    written = avsbench_like.write(place, s4=options.s4, ms3=options.ms3, **how)
    counts = f"{sum(options.s4)} videos of S4, {sum(options.ms3)} of MS3"
    print(f"{place}: {'written' if written else 'there already'}, {counts}")


def add_make_like(one: argparse.ArgumentParser) -> None:
    """What ``data make-avsbench-like`` takes."""
    one.add_argument("folder", metavar="DIR", help="a folder that is not there yet, or is empty")
    one.add_argument("--size", type=int, default=112, help="pixels per side of a frame (default 112)")
    for part in ("s4", "ms3"):
        text = f"videos of {part.upper()}: train, val, test (default 300 30 40)"
        one.add_argument(f"--{part}", nargs=3, type=int, default=[300, 30, 40], metavar="N", help=text)
    one.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    one.set_defaults(command=make_like)


def ablate(options: argparse.Namespace) -> None:
    """``ablate``: every run of a grid that is not recorded, then its tables."""
    from m2vsl import ablations
    from m2vsl.report import ablated

    choices = {"preset": options.preset or "quick", "dataset": options.dataset or "avsbench-like"}
    choices["data_root"] = options.data_root
    try:
        plan = ablations.plan(options.groups, options.tasks, options.seeds, **choices)
    except ValueError as error:
        raise UsageError(error) from error
    left = [one for one in plan if not one.record_path().exists()]
    print(f"{len(plan)} runs, {len(plan) - len(left)} of them recorded", flush=True)
    ablations.run_all(left, options.jobs)
    for group in options.groups:
        print(f"\n{group}\n{ablated.ablation(group, options.tasks, options.seeds, **choices)}")


def add_ablate(one: argparse.ArgumentParser) -> None:
    """What ``ablate`` takes."""
    what = f"(default: all of {', '.join(GROUPS)})"
    one.add_argument("--groups", nargs="+", default=list(GROUPS), choices=GROUPS, metavar="GROUP", help=what)
    one.add_argument("--tasks", nargs="+", default=["multi"], choices=("single", "multi"), metavar="TASK")
    one.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="(default 0 1 2)")
    one.add_argument("--jobs", type=int, default=1, help="runs at a time, a core each (default 1)")
    one.set_defaults(command=ablate)
