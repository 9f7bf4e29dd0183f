"""The loop: what it does to weights, what it keeps, how it stops and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import tiny
import torch
from tiny import PER_EPOCH, Tiny, TwoStages, batches_from, config, run, same

from m2vsl import parallel, processor
from m2vsl.localizer import Stage
from m2vsl.training import checkpoint, loop
from m2vsl.training.config import TrainConfig, learning_rate
from m2vsl.training.loop import spans, train
from m2vsl.training.progress import History
from m2vsl.types import Batch, Losses


def stopping_at(step: int, number: int = signal.SIGINT) -> Callable[[int, int], Iterator[Batch]]:
    """Batches that raise a signal while batch `step` (from 1) is fetched."""

    def source(epoch: int, start: int) -> Iterator[Batch]:
        for index, batch in enumerate(batches_from(epoch, start), start):
            if epoch * PER_EPOCH + index + 1 == step:
                signal.raise_signal(number)
            yield batch

    return source


def test_a_run_without_bfloat16_says_what_it_computes_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for computed in (True, False):
        for module in (processor, loop):
            monkeypatch.setattr(module, "has_bfloat16", lambda kind, computed=computed: computed)
        run(tmp_path / str(computed), config=config(precision="bf16", steps=1), progress=True)
        assert ("float32 in its place" in capsys.readouterr().out) != computed


# --- what is learned ---------------------------------------------------------------------------------------------


def test_it_learns_what_requires_a_gradient_and_nothing_else(tmp_path: Path) -> None:
    before = Tiny()
    localizer, history = run(tmp_path, config=config(steps=60, lr=3e-2))
    rows = [row for row in history.curve if "loss" in row]
    assert rows[-1]["fit"] < 0.7 * rows[0]["fit"]
    assert torch.equal(localizer.frozen, before.frozen)
    assert not torch.equal(localizer.net[0].weight, before.net[0].weight)
    assert localizer.seen_modes == {True} and not localizer.training
    assert history.parameters == sum(p.numel() for p in localizer.net.parameters())


def test_one_step_is_one_step_of_adam(tmp_path: Path) -> None:
    expected = Tiny()
    options = dict(lr=1e-2, weight_decay=0.1)
    adam = torch.optim.Adam(expected.net.parameters(), **options)
    batch = tiny.batch_of(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    for module in expected.net:
        module.p = 0.0  # no dropout
    expected.train()
    expected(batch)["fit"].backward()
    norm = torch.nn.utils.clip_grad_norm_(expected.net.parameters(), 0.05)
    assert norm > 0.05
    adam.step()

    class Plain(Tiny):
        def forward(self, batch: Batch) -> Losses:
            for module in self.net:
                module.p = 0.0
            return {"fit": super().forward(batch)["fit"]}

    got, _ = run(tmp_path, lambda *_: [batch], Plain, config=config(steps=1, grad_clip=0.05, **options))
    for mine, theirs in zip(got.net.parameters(), expected.net.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_bf16_computes_in_bf16_and_keeps_float32_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "has_bfloat16", lambda kind: True)  # emulated is good enough here
    seen = set()

    class Watched(Tiny):
        def forward(self, batch: Batch) -> Losses:
            seen.add(self.net(batch.image).dtype)
            return super().forward(batch)

    localizer, _ = run(tmp_path, method=Watched, config=config(precision="bf16"))
    assert seen == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in localizer.parameters())


def test_a_compiled_run_learns_what_any_run_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the graphs of torch.compile, with the backend that runs them as they are; the names of weights stay."""
    asked, whole = [], torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda own, **how: asked.append(how) or whole(own, **how))

    class Bare(Tiny):
        def forward(self, batch: Batch) -> Losses:
            return {"fit": (self.net(batch.image).float().mean((1, 2, 3)) - batch.heard[:, 0]).square().mean()}

    plain, _ = run(tmp_path / "plain", method=Bare)
    compiled, _ = run(tmp_path / "compiled", method=Bare, config=config(compiler="eager"))
    assert asked == [{"backend": "eager"}] and same(plain, compiled)


def test_channels_last_is_an_order_of_memory_not_another_result(tmp_path: Path) -> None:
    seen = set()

    class Watched(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.net[3].p = 0.0  # dropout draws in the order of memory

        def forward(self, batch: Batch) -> Losses:
            seen.add(batch.image.is_contiguous(memory_format=torch.channels_last))
            return super().forward(batch)

    _, plain = run(tmp_path / "a", method=Watched)
    assert seen == {False}
    _, ordered = run(tmp_path / "b", method=Watched, config=config(channels_last=True))
    assert seen == {False, True}
    assert [row["loss"] for row in ordered.curve] == pytest.approx([row["loss"] for row in plain.curve], rel=1e-3)


def test_the_seed_decides_what_training_draws_whatever_was_drawn_before(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "a", seed=1)
    torch.rand(3)
    again, _ = run(tmp_path / "b", seed=1)
    other, _ = run(tmp_path / "c", seed=2)
    assert same(first, again) and not same(first, other)


def test_a_method_without_parameters_is_not_trained(tmp_path: Path) -> None:
    class Control(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.requires_grad_(False)

    localizer, history = run(tmp_path, method=Control, validate=lambda: 1.0)
    assert same(localizer, Control()) and history.parameters == 0 and history.curve == []


# --- steps, rates, stages ----------------------------------------------------------------------------------------


def test_stages_share_the_steps() -> None:
    one, two, three = Stage("1", 1), Stage("2", 1), Stage("3", 1)
    assert spans((one, two, three), 10) == [(one, 0, 3), (two, 3, 7), (three, 7, 10)]
    assert spans((Stage("a", 0.25), Stage("b", 0.75)), 8)[1][1:] == (2, 8)


def test_learning_rates() -> None:
    assert [learning_rate(TrainConfig(lr=2.0, warmup_steps=4), s, 10) for s in range(6)] == [0.5, 1, 1.5, 2, 2, 2]
    rates = [learning_rate(TrainConfig(lr=1.0, schedule="cosine", warmup_steps=2), s, 10) for s in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0] and rates[6] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(rates[2:])) and 0 < rates[-1] < 0.05


def test_the_rate_reaches_adam(tmp_path: Path) -> None:
    still, _ = run(tmp_path / "a", config=config(lr=0.0))
    assert all(torch.equal(a, b) for a, b in zip(still.parameters(), Tiny().parameters(), strict=True))
    cosine, _ = run(tmp_path / "b", config=config(schedule="cosine"))
    constant, _ = run(tmp_path / "c")
    assert not same(cosine, constant)


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"schedule": "linear"}, "schedule: expected one of"), ({"precision": "fp16"}, "bf16"), ({"steps": 0}, "got 0")],
)
def test_a_configuration_that_means_nothing_is_refused(changes: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        config(**changes)


def test_each_stage_is_entered_once_and_may_freeze(tmp_path: Path) -> None:
    at_door = {}

    class Watched(TwoStages):
        def enter(self, stage: Stage, loader) -> None:
            super().enter(stage, loader)
            at_door[stage.name] = self.net[0].weight.clone()
            assert len(list(loader)) == PER_EPOCH

    localizer, _ = run(tmp_path, method=Watched)
    assert localizer.entered == ["one", "two"]
    assert not torch.equal(at_door["one"], at_door["two"])
    assert torch.equal(at_door["two"], localizer.net[0].weight)


# --- validation --------------------------------------------------------------------------------------------------


def test_the_weights_with_the_best_score_are_returned_and_the_last_score_is_told(tmp_path: Path) -> None:
    scores, weights, modes = iter([0.1, 0.7, float("nan"), 0.7, 0.3]), [], set()
    localizer = Tiny()

    def validate() -> float:
        weights.append(localizer.net[0].weight.detach().clone())
        modes.add((localizer.training, torch.is_grad_enabled()))
        return next(scores)

    history = train(
        localizer, batches_from, config(eval_every=3, steps=14), tmp_path, validate=validate, progress=False
    )
    assert (history.best, history.best_step, history.last) == (0.7, 6, 0.3)
    assert torch.equal(localizer.net[0].weight, weights[1]) and not torch.equal(weights[1], weights[-1])
    assert modes == {(False, False)}
    assert [row["step"] for row in history.curve if "validation" in row] == [3, 6, 9, 12, 14]
    kept = checkpoint.load(tmp_path / "best-000006").weights
    assert torch.equal(kept["net.0.weight"], weights[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best-000006", "log.jsonl", "step-000014"]


def test_validating_more_often_does_not_change_what_is_learned(tmp_path: Path) -> None:
    rising = iter(range(100))

    def validate() -> float:
        torch.rand(5)
        return next(rising)

    seldom, _ = run(tmp_path / "a", validate=validate)
    often, _ = run(tmp_path / "b", config=config(eval_every=1), validate=validate)
    assert same(seldom, often)


def test_scores_of_different_stages_are_not_compared(tmp_path: Path) -> None:
    scores = iter([9.0, 0.1, 0.3])  # at 4 = end of the first stage, 8, 12
    _, history = run(tmp_path, method=TwoStages, config=config(eval_every=4), validate=lambda: next(scores))
    assert (history.best, history.best_step) == (0.3, 12)


# --- going on ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "precision"), [(Tiny, "fp32"), (Tiny, "bf16"), (TwoStages, "bf16")])
def test_stopping_at_any_step_and_resuming_is_bit_identical(tmp_path: Path, method: type, precision: str) -> None:
    chosen = config(precision=precision, schedule="cosine", eval_every=3)

    def go(folder: Path, source=batches_from) -> tuple[Tiny, History]:
        localizer = method()

        def validate() -> float:
            weights = sum(float(p.sum()) for p in localizer.parameters())
            return weights + 1e-9 * float(torch.rand(()))  # would change training if validating drew from it

        return localizer, train(localizer, source, chosen, folder, validate=validate, progress=False)

    whole, history = go(tmp_path / "whole")
    last = checkpoint.load(tmp_path / "whole" / "step-000012")
    for step in range(1, chosen.steps + 1):
        folder = tmp_path / str(step)
        with pytest.raises(KeyboardInterrupt, match="run the same again"):
            go(folder, stopping_at(step))
        at = 4 if (method, step) == (TwoStages, 5) else step  # that batch is first met while the stage is prepared
        assert checkpoint.latest(folder) == folder / f"step-{at:06d}"
        torch.rand(step)  # another process has drawn something else
        again, resumed = go(folder)
        assert same(whole, again), f"stopped at {step}"
        weights = checkpoint.load(folder / "step-000012").weights
        assert all(torch.equal(weights[k], v) for k, v in last.weights.items()), f"stopped at {step}"
        assert _timeless(resumed.curve) == _timeless(history.curve)
        assert (resumed.best, resumed.best_step, resumed.samples) == (history.best, history.best_step, history.samples)


def _timeless(curve: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in curve]


def test_stopping_twice_and_a_killed_process_are_resumed_too(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    for step in (2, 7):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "twice", stopping_at(step))
    assert same(whole, run(tmp_path / "twice")[0])

    code = f"import pathlib, test_loop, tiny; tiny.run(pathlib.Path({str(tmp_path / 'killed')!r}), test_loop.killing)"
    here = Path(__file__).parent
    known = {**os.environ, "PYTHONPATH": str(here.parents[1])}
    ended = subprocess.run([sys.executable, "-c", code], cwd=here, env=known)
    assert ended.returncode == -signal.SIGKILL
    assert checkpoint.latest(tmp_path / "killed") == tmp_path / "killed" / "step-000005"
    localizer, _ = run(tmp_path / "killed")
    assert same(whole, localizer)
    steps = [json.loads(line)["step"] for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12]  # the row of step 8, logged before the kill and again after it, stands there once


def killing(epoch: int, start: int) -> Iterator[Batch]:
    """Batches of a process that is killed in step 10."""
    for index, batch in enumerate(batches_from(epoch, start), start):
        if (epoch, index) == (1, 4):
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    scores = iter([0.5, 0.9, 0.1])
    first, history = run(tmp_path, config=config(eval_every=5), validate=lambda: next(scores))

    def never(epoch: int, start: int) -> Iterator[Batch]:
        raise AssertionError("asked for data")

    again, told = run(tmp_path, never, config=config(eval_every=5), validate=lambda: 1.0)
    assert same(first, again) and told == history and told.best_step == 10


def test_best_weights_of_a_lost_future_are_not_taken(tmp_path: Path) -> None:
    """Killed after a better validation that no checkpoint knows of: the best known to the checkpoint is what counts."""
    run(tmp_path / "a", config=config(steps=6, eval_every=2), validate=iter([0.9, 0.1, 0.2]).__next__)
    best = checkpoint.load(tmp_path / "a" / "best-000002").weights
    checkpoint.save(tmp_path / "a" / "best-000009", {"wrong": torch.zeros(1)}, {})
    again, _ = run(tmp_path / "a", config=config(steps=6, eval_every=2), validate=lambda: 0.0)
    assert torch.equal(again.net[0].weight, best["net.0.weight"])


def test_a_run_of_another_configuration_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    run(tmp_path, about={"data": {"size": 64}})
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match=r"about.data.size: 64 there, 96 here; train.lr: 0.01 there, 0.02 here"):
        run(tmp_path, about={"data": {"size": 96}}, config=config(lr=2e-2))
    with pytest.raises(ValueError, match="seed: 0 there, 1 here"):
        run(tmp_path, about={"data": {"size": 64}}, seed=1)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    run(tmp_path, about={"data": {"size": 64}}, config=config(log_every=1, checkpoint_every=1))  # nothing of substance


# --- stopping ----------------------------------------------------------------------------------------------------


def test_sigterm_saves_and_exits_with_its_status(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, stopping_at(3, signal.SIGTERM))
    assert caught.value.code == 143
    assert f"stopped after step 3; run the same again to go on from {tmp_path}" in capsys.readouterr().err
    assert checkpoint.latest(tmp_path) == tmp_path / "step-000003"


def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path: Path) -> None:
    def source(epoch: int, start: int) -> Iterator[Batch]:
        for index, batch in enumerate(batches_from(epoch, start), start):
            if (epoch, index) == (1, 2):
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
            yield batch

    with pytest.raises(KeyboardInterrupt, match="at once"):
        run(tmp_path, source)
    assert checkpoint.latest(tmp_path) == tmp_path / "step-000005"
    assert same(run(tmp_path)[0], run(tmp_path / "whole")[0])


def test_ctrl_c_that_kills_the_workers_of_the_loader_stops_at_the_step_before(tmp_path: Path) -> None:
    def source(epoch: int, start: int) -> Iterator[Batch]:
        for index, batch in enumerate(batches_from(epoch, start), start):
            if (epoch, index) == (1, 2):
                signal.raise_signal(signal.SIGINT)
                raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")
            yield batch

    with pytest.raises(KeyboardInterrupt, match="after step 7"):
        run(tmp_path, source)
    assert same(run(tmp_path)[0], run(tmp_path / "whole")[0])


def test_an_error_of_the_data_is_not_taken_for_a_stop(tmp_path: Path) -> None:
    def source(epoch: int, start: int) -> Iterator[Batch]:
        raise RuntimeError("a broken file")
        yield

    with pytest.raises(RuntimeError, match="a broken file"):
        run(tmp_path, source)


def test_the_handlers_of_the_caller_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_it_trains_in_a_thread_where_signals_cannot_be_handled(tmp_path: Path) -> None:
    done = []
    thread = threading.Thread(target=lambda: done.append(run(tmp_path / "thread")[0]))
    thread.start()
    thread.join()
    assert same(done[0], run(tmp_path / "main")[0])


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_step_losses_and_samples(tmp_path: Path, value: float) -> None:
    def source(epoch: int, start: int) -> Iterator[Batch]:
        for index, batch in enumerate(batches_from(epoch, start), start):
            bad = (epoch, index) == (1, 1)
            yield replace(batch, image=batch.image * value, keys=("a", "b")) if bad else batch

    with pytest.raises(FloatingPointError, match=r"step 7: losses {'fit': nan.*\('a', 'b'\)"):
        run(tmp_path, source)
    weights = checkpoint.load(tmp_path / "step-000005").weights
    assert all(w.isfinite().all() for w in weights.values())


def test_weights_that_became_nan_are_not_saved(tmp_path: Path) -> None:
    class Spoilt(Tiny):
        def forward(self, batch: Batch) -> Losses:
            weight = self.net[0].weight
            weight.register_hook(lambda gradient: gradient * float("nan"))
            return super().forward(batch)

    with pytest.raises(FloatingPointError, match=r"step 1: NaN in the weights, so not saved: \['net.0.weight'\]"):
        run(tmp_path, method=Spoilt, config=config(checkpoint_every=1))
    assert checkpoint.latest(tmp_path) is None


def test_an_epoch_without_batches_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epoch 0 has no batch"):
        run(tmp_path, lambda epoch, start: [])


def test_a_full_disk_stops_training_and_the_earlier_checkpoint_still_serves(tmp_path: Path, monkeypatch) -> None:
    write = checkpoint._write

    def full(path: Path, data: bytes) -> None:
        if "step-000010" in str(path) and path.name == checkpoint.STATE:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(OSError, match=r"No space left on device.*step-000010"):
        run(tmp_path)
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-000005"]
    monkeypatch.undo()
    assert same(run(tmp_path)[0], run(tmp_path / "whole")[0])


def test_a_damaged_checkpoint_is_not_started_over_in_silence(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "step-000012" / checkpoint.WEIGHTS).write_bytes(b"")
    with pytest.raises(ValueError, match=r"step-000012.*sha256 expected"):
        run(tmp_path)


def test_an_unwritable_run_folder_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        run(tmp_path / "file" / "run", lambda epoch, start: pytest.fail("trained"))


def test_processes_that_have_learnt_apart_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = parallel.of_each
    monkeypatch.setattr(parallel, "of_each", lambda x: [x, x + 1] if isinstance(x, float) else told(x))
    with pytest.raises(RuntimeError, match="step 5: the processes have learnt apart"):
        run(tmp_path)
    assert not list(tmp_path.glob("step-*"))
