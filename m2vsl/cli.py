"""``m2vsl`` on the command line: check data, train, evaluate, print tables, run a preset.

Thin: every command is a few calls of the package, imported when it is needed so that ``--help`` answers at once.
Exit status: 0 done, 1 the data or a file is at fault, 2 the command line is, 130 stopped by ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from m2vsl import cli_maps, cli_masks
from m2vsl import help as say
from m2vsl.help import METHODS, PRESETS, TASKS, UsageError

if TYPE_CHECKING:
    from m2vsl.experiment import Experiment
    from m2vsl.records import Record


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. Errors are one line on stderr, with ``--traceback`` all of it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(given)
    try:
        with redirect_stdout(open(os.devnull, "w") if int(os.environ.get("RANK", "0")) else sys.stdout):
            return int(options.command(options) or 0)  # of several processes the first speaks
    except KeyboardInterrupt as stopped:
        print(f"\n{stopped or 'stopped'}\nto go on: m2vsl {shlex.join(given)}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UsageError, OSError, ValueError, ArithmeticError, ImportError, MemoryError) as error:
        if options.traceback:
            raise
        print(f"m2vsl: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def check(options: argparse.Namespace) -> int:
    """``data check``: every problem of a folder with its file; or what there is of a published benchmark."""
    from m2vsl.data import avsbench_survey, survey
    from m2vsl.data.avsbench import AVSBenchConfig
    from m2vsl.data.benchmarks import BENCHMARKS
    from m2vsl.data.doctor import examine
    from m2vsl.data.folder import FolderConfig, expect_among
    from m2vsl.data.vggsound import VGGSoundConfig

    look: Any
    try:
        if options.benchmark == "avsbench":
            look = partial(avsbench_survey.survey, AVSBenchConfig(options.folder, labels=options.lists))
        elif options.benchmark:
            expect_among("benchmark", options.benchmark, ("avsbench", *BENCHMARKS))
            config = VGGSoundConfig(options.folder, benchmark=options.benchmark, lists=options.lists)
            look = partial(survey.survey, config)
        else:
            look = partial(
                examine, options.folder, FolderConfig(options.folder, fold=options.fold, val_fold=options.val_fold)
            )
    except ValueError as error:
        raise UsageError(error) from error
    found = look()
    print(found)
    return 1 if found.problems else 0


def train(options: argparse.Namespace) -> None:
    """``train``: load a complete training, else resume, else begin; as one of several processes under torchrun."""
    from m2vsl import experiment

    chosen = _experiment(options)
    if not chosen.trains:
        print(f"{chosen.method} learns nothing; m2vsl evaluate {options.what} scores it")
        return
    _, history = experiment.trained(chosen, max_hours=options.max_hours, profile=options.profile)
    best = f", best validation loss {-history.best:.4f} at step {history.best_step}" if history.best is not None else ""
    print(f"{options.what}, seed {chosen.seed}: {history.step} steps in {history.seconds:.0f} s{best}")
    print(f"checkpoints: {chosen.run_dir()}")


def release(options: argparse.Namespace) -> None:
    """``release``: the weights of a finished and recorded run in half precision, with a card."""
    from m2vsl import released

    folder = released.release(_experiment(options))
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size:>9,} bytes  {path}")


def evaluate(options: argparse.Namespace) -> None:
    """``evaluate``: score a trained checkpoint, or maps from files; write the record, print its table."""
    from m2vsl import experiment

    if bool(options.what) == bool(options.maps):
        raise UsageError("expected either METHOD/TASK or --maps with --truth")
    if options.maps:
        return cli_maps.score_maps(options)
    chosen = _experiment(options)
    if not chosen.complete():
        raise FileNotFoundError(
            f"no complete training of {options.what} with these choices in {chosen.run_dir()}; "
            f"`m2vsl train` with the same arguments makes it"
        )
    record = experiment.scored(chosen, progress=False)
    _show([record], [record.method], record.task)
    print(f"record: {chosen.record_path()}")


def table(options: argparse.Namespace) -> None:
    """``table``: what is recorded of a preset, without running anything."""
    from m2vsl import records

    found = []
    for chosen in _plan(options, [options.task]):
        path = chosen.record_path()
        found += [records.load(path)] if path.exists() else []
    _show(found, options.methods, options.task)


def run(options: argparse.Namespace) -> None:
    """``run``: every experiment of a preset: load if recorded, else resume, else train."""
    from m2vsl import experiment

    plan, renewed, found = _plan(options, options.tasks), set(), []
    for number, chosen in enumerate(plan, 1):
        name = f"[{number}/{len(plan)}] {chosen.method}/{chosen.task}, seed {chosen.seed}"
        recorded = chosen.record_path().exists() and not options.fresh
        print(f"{name}: {'recorded' if recorded else 'running'}", flush=True)
        if options.fresh and chosen.run_dir() in renewed:  # trained a moment ago, for another row
            found.append(experiment.scored(chosen, max_hours=options.max_hours))
        else:
            found.append(experiment.run(chosen, fresh=options.fresh, max_hours=options.max_hours))
        renewed.add(chosen.run_dir())
    for task in options.tasks:
        print(f"\n{task}")
        _show([record for record in found if record.task == task], options.methods, task)


def _experiment(options: argparse.Namespace) -> Experiment:
    """What ``METHOD/TASK`` and the options stand for. UsageError if there is no such thing."""
    from m2vsl import presets

    method, slash, task = options.what.partition("/")
    if not slash:
        known = f"methods: {', '.join(METHODS)}; tasks: {', '.join(TASKS)}"
        raise UsageError(f"expected METHOD/TASK, such as m2vsl/duet, got {options.what!r}; {known}")
    pairs = [*options.pairs, *["data.skip_bad=true"] * options.skip_bad]
    try:
        return presets.override(presets.experiment(method, task, seed=options.seed, **_choices(options)), pairs)
    except ValueError as error:
        raise UsageError(error) from error


def _plan(options: argparse.Namespace, tasks: Sequence[str]) -> list[Experiment]:
    """Every method and seed of some tasks."""
    from m2vsl import presets

    pairs = ["data.skip_bad=true"] * options.skip_bad
    try:
        made = [presets.table(options.methods, t, seeds=options.seeds, **_choices(options)) for t in tasks]
        return [presets.override(one, pairs) for some in made for one in some]
    except ValueError as error:
        raise UsageError(error) from error


def _choices(options: argparse.Namespace) -> dict[str, str]:
    """Preset and data set; a folder is named by where it lies."""
    root, dataset = options.data_root, options.dataset or ("folder" if options.data_root else "synthetic")
    if root and dataset == "synthetic":
        raise UsageError("--data-root is for --dataset folder; synthetic needs none")
    if root and dataset != "avsbench-like" and not Path(root).is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    if options.skip_bad and dataset != "folder":
        other = "synthetic has no files" if dataset == "synthetic" else f"{dataset} lists what is missing anyway"
        raise UsageError(f"--skip-bad is for --dataset folder; {other}")
    return {"preset": options.preset or os.environ.get("M2VSL_PRESET", "quick"), "dataset": dataset, "data_root": root}


def _show(found: Sequence[Record], methods: Sequence[str], task: str) -> None:
    """The tables of a task, without columns that none of the records has."""
    from m2vsl.report import tables

    for columns in (tables.SINGLE,) if task == "single" else (tables.DUET, tables.LISTENING):
        known = [c for c in columns if not found or any(c.metric in record.metrics for record in found)]
        print(tables.table(found, known, methods), end="\n\n")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options; what is left over and has a ``=`` is an override, wherever it stands."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    pairs = [one for one in rest if "=" in one and not one.startswith("-")]
    odd = [one for one in rest if one not in pairs] + pairs * (not options.overrides)
    if odd:
        parser.error(f"not understood: {' '.join(odd)}")
    options.pairs = pairs
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("m2vsl", description="Which pixels make the sound?", formatter_class=_TEXT, epilog=say.EXAMPLES)
    parser.set_defaults(overrides=False, traceback=False)
    kinds = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    data = _add(kinds, "data", "look data over", say.CHECK)
    of_data = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    one = _add(of_data, "check", "list every problem of a folder, with its file", say.CHECK)
    one.add_argument("folder", metavar="DIR", help="folder with images/<class>/, audio/<class>/, masks/<class>/")
    one.add_argument("--fold", type=int, default=5, help="the test fold (default 5)")
    one.add_argument("--val-fold", type=int, default=4, help="the validation fold, 0 = none (default 4)")
    one.add_argument("--benchmark", default="", metavar="NAME", help="vggsound, instruments, flickr or avsbench")
    one.add_argument(
        "--lists",
        default="",
        metavar="DIR",
        help="lists of the benchmark (default DIR/metadata); of avsbench, labels of MS3",
    )
    one.set_defaults(command=check)
    cli_masks.add_make_like(
        _add(of_data, "make-avsbench-like", "write synthetic videos as AVSBench has them", say.LIKE)
    )
    for name, command, text, example in (
        ("train", train, "train one method: load if complete, else resume, else begin", say.TRAIN),
        ("evaluate", evaluate, "score a trained method, or maps from files", say.EVALUATE + say.MAPS + say.TRUTHS),
        ("release", release, "keep the weights of a run, small and with a card", say.RELEASE),
    ):
        one = _add(kinds, name, text, example + say.OVERRIDES * (name != "release") + say.NAMES)
        one.usage = f"m2vsl {name} METHOD/TASK [options]" + " [key=value ...]" * (name != "release")
        alone = "?" if name == "evaluate" else None
        one.add_argument("what", metavar="METHOD/TASK", nargs=alone, default="", help="such as m2vsl/duet")
        if name == "evaluate":
            cli_maps.add_options(one)
        one.add_argument("--preset", default="", help=say.PRESET)
        one.add_argument("--seed", type=int, default=0, help="of weights, pairs and order (default 0)")
        if name == "train":
            one.add_argument("--max-hours", type=float, default=0.0, metavar="H", help=say.HOURS)
            one.add_argument("--profile", type=int, default=0, metavar="N", help=say.TRACE)
        one.set_defaults(command=command, overrides=name != "release")
    one = _add(kinds, "bounds", "what constants reach and ceilings allow on a list of truths", say.BOUNDS + say.TRUTHS)
    one.add_argument("--truth", nargs="+", required=True, metavar="PLACE", help="KIND ROOT, or a vggss.json")
    one.set_defaults(command=cli_maps.bounds)
    one = _add(kinds, "table", "print the table of a task from its records; nothing is run", say.TABLE + say.NAMES)
    one.add_argument("task", metavar="TASK", choices=TASKS, help=", ".join(TASKS))
    one.add_argument("--preset", default="", help=say.PRESET)
    _several(one)
    one.set_defaults(command=table)
    what = "every experiment of a preset: load if recorded, else resume, else train"
    one = _add(kinds, "run", what, say.RUN + say.NAMES)
    one.add_argument("preset", metavar="PRESET", choices=PRESETS, help=", ".join(PRESETS))
    _several(one)
    one.add_argument("--tasks", nargs="+", default=["duet", "single"], choices=TASKS, metavar="TASK")
    one.add_argument("--max-hours", type=float, default=0.0, metavar="H", help=say.HOURS)
    one.add_argument("--fresh", action="store_true", help="forget records and checkpoints, train anew")
    one.set_defaults(command=run)
    one = _add(kinds, "ablate", "run a grid of changes to M2VSL, and say what each is worth", say.ABLATE)
    cli_masks.add_ablate(one)
    one.add_argument("--preset", default="", help=say.PRESET)
    return parser


def _add(kinds: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    one = kinds.add_parser(name, help=text, description=text, epilog=example, formatter_class=_TEXT)
    one.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help="show all of an error")
    if name not in ("data", "check", "bounds", "make-avsbench-like"):
        one.add_argument("--dataset", default="", help="synthetic (default), folder, vggsound, avsbench, avsbench-like")
        one.add_argument("--data-root", default="", metavar="DIR", help="the folder of the data set")
        one.add_argument("--skip-bad", action="store_true", help="leave out files with problems, and list them")
    return one


def _several(one: argparse.ArgumentParser) -> None:
    one.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    one.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="(default 0 1 2)")


_TEXT = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    sys.exit(main())
