"""The commands about maps of other programs: ``evaluate --maps`` and ``bounds``. As thin as `m2vsl.cli`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2vsl.help import UsageError

SOUNDS = {"silence": "silence", "noise": "white noise", "offscreen": "the sound of what is not there"}
VALUES = ("heat", "positive", "area50", "logits", "probabilities")  # `Segmentation.reads`; torch is not loaded for it

if TYPE_CHECKING:
    from m2vsl.data.truths import Truths


def add_options(one: argparse.ArgumentParser) -> None:
    """What ``evaluate`` takes for maps of another program."""
    add = one.add_argument_group("heat maps of any program, instead of METHOD/TASK").add_argument
    add("--maps", nargs="+", default=[], metavar="PLACE", help="folder or .npz; several are runs of one program")
    add("--truth", nargs="+", default=[], metavar="PLACE", help="KIND ROOT, or a vggss.json")
    add("--protocol", nargs="+", default=["all"], metavar="NAME", help="all (default), or names of protocols")
    add("--roles", default="auto", choices=("auto", "sources", "turns"), help="what several maps of a clip are")
    add("--values", default="heat", choices=VALUES, help="how avsbench reads the maps")
    add("--name", default="", help="of the program (default: of the folder)")
    add("--against", nargs="+", default=[], metavar="PLACE", help="maps of a rival: paired bootstrap over clips")
    for name, what in SOUNDS.items():
        add(f"--{name}", default="", metavar="PLACE", help=f"maps of the same clips under {what}")
    add("--allow-missing", action="store_true", help="score what is there, and mark it as a subset")
    add("--no-bounds", action="store_true", help="leave out constants and ceilings")
    add("--out", default="scores", metavar="DIR", help="where record and csv go (default scores)")


def score_maps(options: argparse.Namespace) -> None:
    """``evaluate --maps``: heat maps of any program under every protocol."""
    from m2vsl import scoring
    from m2vsl.data.heatmaps import Heatmaps
    from m2vsl.metrics.calls import Segmentation
    from m2vsl.metrics.protocols import HEADLINE, named
    from m2vsl.report import outside, scores

    if options.name and (Path(options.name).name != options.name or options.name.startswith(".")):
        raise UsageError(f"expected --name to be a plain name, got {options.name!r}")
    truths, out = _truths(options.truth), Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        segmentation = Segmentation(reads=options.values) if {"all", "avsbench"} & set(options.protocol) else None
        chosen = named(*[name for name in options.protocol if name != "avsbench"] or [HEADLINE.name])
    except ValueError as error:
        raise UsageError(error) from error
    others = {name: Heatmaps(Path(getattr(options, name))) for name in SOUNDS if getattr(options, name)}
    if others and len(options.maps) > 1:
        raise UsageError(f"--{next(iter(others))} is for one folder of --maps, got {len(options.maps)}")
    how: dict[str, Any] = {"roles": options.roles, "allow_missing": options.allow_missing}
    runs = [
        scoring.score_maps(Heatmaps(Path(place)), truths, chosen, segmentation, name=options.name, **how)
        for place in options.maps
    ]
    if others:
        runs = [scoring.with_others(runs[0], Heatmaps(Path(options.maps[0])), others)]
    rivals = [scoring.score_maps(Heatmaps(Path(place)), truths, chosen, **how) for place in options.against]
    limits = None if options.no_bounds else scores.bounds(truths, runs[0].coverage.found)
    ceiling = None if options.no_bounds else scores.ceilings(truths, runs[0])
    outside.check(runs, rivals)
    ahead = scores.leads(runs, rivals) if rivals else {}
    print(outside.shown(runs, limits, rivals, ceiling, ahead))
    saved = [scores.save(one, out, seed=seed) for some in (runs, rivals) for seed, one in enumerate(some)]
    if ahead:
        scores.save_leads(saved[0], ahead)
    print("".join(f"\nrecord: {path}" for path in saved))


def bounds(options: argparse.Namespace) -> None:
    """``bounds``: what constants reach and ceilings allow on a list of truths."""
    from m2vsl.report import scores

    truths = _truths(options.truth)
    print("\n".join([f"{truths.kind}: {len(truths.ids)} of {truths.full} clips", *map(str, truths.problems), ""]))
    print(scores.bounds(truths))


def _truths(given: Sequence[str]) -> Truths:
    """KIND ROOT, or a vggss.json alone."""
    from m2vsl.data.truths import KINDS, open_truths

    kind, root = given if len(given) == 2 else ("vggss", given[0] if given else "")
    if len(given) not in (1, 2) or kind not in KINDS or (len(given) == 1 and not root.endswith(".json")):
        raise UsageError(f"expected --truth KIND ROOT, KIND among {', '.join(KINDS)}, or a vggss.json; got {given}")
    return open_truths(kind, Path(root))
