# The workflow behind `make book`: one notebook, one job; then the page.
#
#   snakemake --cores 2                                         the book, as runs.yml says
#   snakemake --cores 2 --config preset=quick dataset=folder data_root=PATH
#   snakemake --executor slurm --jobs 20 --slurm-no-account --slurm-status-command squeue \
#             --default-resources slurm_partition=gpu --config preset=full
import shlex
import sys

sys.path.insert(0, "book")
from fingerprint import fingerprint


configfile: "book/runs.yml"


def stop(why):
    """Say why on the terminal: Snakemake itself is told to be quiet."""
    print(f"FAIL  {why}", flush=True)
    sys.exit(1)


NOTEBOOKS = config["notebooks"]


def code_of(name):
    shown = NOTEBOOKS[name].get("records", False)
    folder = shown if isinstance(shown, str) else f"data/results/{config['preset']}"
    kept = [Path("data/paper.csv"), *sorted(Path(folder).rglob("*.json"))] if shown else []
    try:
        return fingerprint(Path(f"notebooks/{name}.ipynb"), Path("m2vsl"), [Path("requirements.lock"), *kept])
    except (OSError, ValueError, KeyError) as error:
        stop(f"notebooks/{name}.ipynb cannot be read: {type(error).__name__}: {error}")


ROOT = Path(config["data_root"]).resolve() if config["data_root"] else ""
if ROOT and not ROOT.is_dir():
    stop(f"data_root: no folder at {ROOT}")
if config["dataset"] != "synthetic" and not ROOT:
    stop(f"dataset {config['dataset']} needs data_root, the folder it is in")
LARGE = config["preset"] not in ("smoke", "quick")
GIVEN = {"preset": config["preset"], "dataset": config["dataset"], "data_root": str(ROOT), "seed": str(config["seed"])}
RUN = f"book/_executed/{config['preset']}-{config['dataset']}"
PAGE = [p for pattern in ("*.*", "_ext/*.py", "_static/*.*", "[!_]*/*.*") for p in Path("book").glob(pattern)]
PAGE += [Path("m2vsl/baselines/README.md")]


rule book:
    input:
        "book/_build/html/index.html",


rule notebooks:
    input:
        expand(f"{RUN}/{{name}}.ipynb", name=NOTEBOOKS),


for turn, (name, needs) in enumerate(NOTEBOOKS.items()):

    rule:
        name: f"run_{name}"
        input:
            ancient(f"notebooks/{name}.ipynb"),
        output:
            f"{RUN}/{name}.ipynb",
        params:
            given=" ".join(shlex.join(["-p", name, value]) for name, value in GIVEN.items()),
            code=code_of(name),
        log:
            f"{RUN}/{name}.log",
        priority: len(NOTEBOOKS) - turn
        threads: needs.get("threads", 1)
        resources:
            runtime=needs.get("minutes", 60) if LARGE else 20,
            mem_mb=needs.get("mem_mb", 4000) if LARGE else 3000,
            gpu=needs.get("gpu", 0) if LARGE else 0,
        shell:
            "python book/run.py execute {input} {output} {params.given} 2> {log} "
            "|| {{ status=$?; [ $status = 3 ] || tail -n 25 {log}; exit $status; }}"  # 3: it has said why itself

    rule:
        name: f"check_{name}"
        input:
            ancient(f"notebooks/{name}.ipynb"),
        output:
            touch(f"{RUN}/{name}.checked"),
        priority: len(NOTEBOOKS) - turn
        threads: needs.get("threads", 1)
        shell:
            "python book/run.py check {input}"


rule check:  # with --forceall: what passed once may fail today
    input:
        expand(f"{RUN}/{{name}}.checked", name=NOTEBOOKS),


rule page:
    input:
        rules.notebooks.input,
        expand("notebooks/{name}.ipynb", name=NOTEBOOKS),
        "_config.yml",
        sorted(map(str, [*PAGE, *Path("m2vsl").rglob("*.py")])),
    output:
        "book/_build/html/index.html",
    params:
        run=RUN,
        offline=sorted(map(str, Path("book/_static/vendor").glob("*"))),
    threads: workflow.cores
    shell:
        "python book/render.py {params.run}"
