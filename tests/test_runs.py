"""A run directory is held by one process, never overwritten, and resumed only as it was begun."""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from instil import jsonl, runs
from instil.errors import InstilError
from instil.runs import Run, model_dir, read_info, read_lines, versions, write_json


@dataclass(frozen=True)
class Config:
    """What these runs are run with."""

    out: Path
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = None
    tensorboard: bool = False


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "sft"


def take_steps(out, *steps, command="sft", threads=2, finish=False, **settings):
    """Open the run, log some steps, and leave it as a kill would, or finish it."""
    with Run.open(out, command, Config(out=out, **settings), threads=threads) as run:
        for step in steps:
            run.log(step, {"loss": 1 / step})
        if finish:
            run.finish(tokens=7)
    return json.loads((out / "run.json").read_text())


def refused(out, **settings):
    """What the error says when the run may not be opened."""
    with pytest.raises(InstilError) as caught:
        take_steps(out, **settings)
    return str(caught.value).removeprefix(f"{out}: ")


def test_run_json_says_what_was_run_before_anything_else(out):
    with Run.open(out, "sft", Config(out=out), threads=2):
        info = json.loads((out / "run.json").read_text())
        assert not (out / "metrics.jsonl").exists()
    assert info["command"] == "sft"
    assert info["config"] == {
        "out": str(out),
        "lr": 0.1,
        "betas": [0.9, 0.95],
        "clip": None,
        "tensorboard": False,
    }
    assert info["versions"] == versions()
    assert (info["threads"], info["status"]) == (2, "running")
    assert read_info(out) == info


def test_metrics_are_one_object_a_step(out):
    take_steps(out, 1, 2)
    assert (out / "metrics.jsonl").read_text() == '{"step":1,"loss":1.0}\n{"step":2,"loss":0.5}\n'


def test_what_is_not_a_number_is_null(out):
    with Run.open(out, "ppo", Config(out=out)) as run:
        run.log(1, {"a": math.nan, "b": math.inf})
        run.finish(std=math.nan)
    assert (out / "metrics.jsonl").read_text() == '{"step":1,"a":null,"b":null}\n'
    assert json.loads((out / "run.json").read_text())["std"] is None


def test_samples_keep_any_text(out):
    text = "one\u2028two\nthree 🦜\x85"  # characters that some readers take for line ends
    with Run.open(out, "ppo", Config(out=out)) as run:
        run.samples(3, [{"response": text}, {"response": ""}])
    assert read_lines(out / "samples.jsonl") == [
        {"step": 3, "response": text},
        {"step": 3, "response": ""},
    ]


def test_a_finished_run_is_never_overwritten(out):
    info = take_steps(out, 1, finish=True)
    assert info["status"] == "finished" and info["tokens"] == 7
    before = {path: path.read_bytes() for path in out.iterdir() if path.name != "run.lock"}
    assert refused(out) == "this run is finished and never overwritten; choose another --out"
    assert refused(out, lr=0.2).startswith("this run is finished")
    assert {path: path.read_bytes() for path in before} == before


def test_an_unfinished_run_goes_on(out):
    take_steps(out, 1, 2)
    assert take_steps(out, 3, finish=True)["status"] == "finished"
    assert [row["step"] for row in read_lines(out / "metrics.jsonl")] == [1, 2, 3]


def test_another_config_is_refused_and_the_fields_that_differ_are_named(out):
    take_steps(out, 1)
    message = refused(out, lr=0.2, betas=(0.9, 0.99))
    assert message.startswith(
        "cannot resume with another config: "
        "betas was [0.9, 0.95], is [0.9, 0.99], lr was 0.1, is 0.2"
    )
    assert "clip" not in message
    assert read_info(out)["config"]["lr"] == 0.1


def test_data_that_changed_since_are_refused_and_named(out, tmp_path):
    @dataclass(frozen=True)
    class WithData:
        """A config that names files."""

        out: Path
        text: tuple[Path, ...]

    data = tmp_path / "text.txt"
    data.write_text("one")
    config = WithData(out, (data,))
    with Run.open(out, "pretrain", config) as run:
        run.log(1, {})
    # printf one | sha256sum
    digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert read_info(out)["data"] == {str(data): digest}
    data.write_text("two")
    with (
        pytest.raises(InstilError, match=r"text\.txt: not what it was when the run began"),
        Run.open(out, "pretrain", config),
    ):
        pass
    data.write_text("one")
    with Run.open(out, "pretrain", config):
        pass


def test_a_directory_that_was_moved_is_still_the_run(out, tmp_path):
    take_steps(out, 1)
    moved = out.rename(tmp_path / "moved")
    assert take_steps(moved, 2)["status"] == "running"


def test_another_command_is_refused(out):
    take_steps(out, 1)
    assert refused(out, command="rm") == "holds a run of `instil sft`; choose another --out"


def test_other_threads_and_versions_are_said(out, capsys, monkeypatch):
    take_steps(out, 1)
    capsys.readouterr()
    take_steps(out, 2)
    assert capsys.readouterr().err == ""
    take_steps(out, 3, threads=1)
    error = capsys.readouterr().err
    assert "started with 2 threads, resumed with 1: the result will not be equal" in error
    monkeypatch.setattr(runs, "versions", lambda: versions() | {"torch": "0.1"})
    take_steps(out, 4)
    assert "started with another version of torch" in capsys.readouterr().err


def test_the_lock_names_its_holder(out):
    with Run.open(out, "sft", Config(out=out)) as run:
        run.log(1, {})
        message = refused(out)
    here = f"process {os.getpid()} on {platform.node()}"
    assert message == f"{here} works in this run directory; wait for it or choose another --out"


def test_the_lock_of_another_process(out):
    code = (
        "import sys, pathlib; from instil.runs import Run; from dataclasses import make_dataclass\n"
        "config = make_dataclass('Config', [('out', str)])(sys.argv[1])\n"
        "with Run.open(pathlib.Path(sys.argv[1]), 'sft', config):\n"
        "    print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"open\n"
        assert f"process {holder.pid} on" in refused(out)
    finally:
        holder.kill()
        holder.communicate()
    take_steps(out, 1)  # a kill gives the lock up


def test_the_lock_is_given_up_when_the_run_fails(out):
    with pytest.raises(ZeroDivisionError), Run.open(out, "sft", Config(out=out)) as run:
        run.log(1 // 0, {})
    take_steps(out, 1)


def test_a_run_that_fails_before_its_first_step_leaves_nothing(out):
    def fail():
        with Run.open(out, "sft", Config(out=out)):
            raise InstilError("prompts.jsonl: no such file")

    with pytest.raises(InstilError):
        fail()
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InstilError):
        fail()
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_a_run_that_stopped_by_itself_says_why_and_can_go_on(out):
    with Run.open(out, "ppo", Config(out=out)) as run:
        run.log(1, {})
        run.stopped("objective/kl 120 is over 100")
    assert read_info(out)["status"] == "stopped: objective/kl 120 is over 100"
    with Run.open(out, "ppo", Config(out=out)):
        assert read_info(out)["status"] == "running"


def test_rewind_forgets_what_came_after_and_a_torn_line(out):
    with Run.open(out, "ppo", Config(out=out)) as run:
        for step in (1, 2, 3):
            run.log(step, {"loss": 0.1 * step})
            run.samples(step, [{"response": f"é {step}"}])
        whole = (out / "metrics.jsonl").read_bytes()
        with (out / "metrics.jsonl").open("ab") as file:
            file.write(b'{"step":4,"lo')  # a kill in the middle of a write
        with (out / "samples.jsonl").open("ab") as file:
            file.write(b'{"step":4,"response":"\xc3')  # half a letter
        assert [row["step"] for row in read_lines(out / "metrics.jsonl")] == [1, 2, 3]
        run.rewind(3)
        assert (out / "metrics.jsonl").read_bytes() == whole
        run.rewind(2)
        assert (out / "metrics.jsonl").read_bytes() == b"".join(whole.splitlines(True)[:2])
        assert [row["response"] for row in read_lines(out / "samples.jsonl")] == ["é 1", "é 2"]
        run.log(3, {"loss": 0.1 * 3})
        assert (out / "metrics.jsonl").read_bytes() == whole  # to the byte
        run.rewind(0)
        assert (out / "metrics.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"command": ', "run.json: not JSON"),
        (b"\xff\xfe", "run.json: not JSON"),
        (b"[1]", "run.json: is not the run.json of a run"),
        (b'{"name": "someone else\'s"}', "run.json: is not the run.json of a run"),
    ],
)
def test_a_damaged_run_json_is_not_overwritten(out, content, message):
    take_steps(out, 1)
    (out / "run.json").write_bytes(content)
    with pytest.raises(InstilError, match=message):
        take_steps(out, 2)
    assert (out / "run.json").read_bytes() == content


def test_metrics_without_run_json_are_not_overwritten(out):
    take_steps(out, 1)
    (out / "run.json").unlink()
    assert "no run.json" in refused(out)
    assert len(read_lines(out / "metrics.jsonl")) == 1


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("mine")
    assert refused(tmp_path / "file").startswith("cannot make the run directory (")
    assert refused(tmp_path / "file" / "below").startswith("cannot make the run directory (")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_and_the_second_aborts(out, number):
    before = signal.getsignal(number)
    with Run.open(out, "sft", Config(out=out)) as run:
        assert not run.stop_requested
        os.kill(os.getpid(), number)
        assert run.stop_requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_a_run_in_a_thread_leaves_signals_alone(out):
    steps = []
    thread = threading.Thread(target=lambda: steps.append(take_steps(out, 1)["status"]))
    thread.start()
    thread.join()
    assert steps == ["running"]


def test_the_model_of_a_run_is_its_final(tmp_path):
    plain = tmp_path / "model"
    assert model_dir(plain) == plain
    write_json(tmp_path / "run.json", {"status": "running"})
    with pytest.raises(InstilError, match="this run is not finished; start the same command"):
        model_dir(tmp_path)
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "config.json").write_text("{}")
    assert model_dir(tmp_path) == tmp_path / "final"


def test_a_directory_without_run_json_is_no_run(tmp_path):
    with pytest.raises(InstilError, match=r"no run\.json there; give the directory of a run"):
        read_info(tmp_path)


def test_tensorboard_gets_the_numbers(out):
    pytest.importorskip("tensorboard")
    with Run.open(out, "sft", Config(out=out, tensorboard=True)) as run:
        run.log(1, {"loss": 0.5, "best": {"step": 1}, "note": "text"})
        run.log(2, {"loss": 99.0})
    with Run.open(out, "sft", Config(out=out, tensorboard=True)) as run:
        run.log(2, {"loss": 0.25})  # resumed after step 1: the first step 2 is forgotten
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(out / "tb"))
    board.Reload()
    assert board.Tags()["scalars"] == ["train/loss"]
    found = [(event.step, event.value) for event in board.Scalars("train/loss")]
    assert found == [(1, 0.5), (2, 0.25)]


FULL_DISK = """
import resource, signal, sys
from dataclasses import dataclass
from pathlib import Path
from instil.errors import InstilError
from instil.runs import Run

@dataclass(frozen=True)
class Config:
    out: Path

out, limit = Path(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with Run.open(out, "sft", Config(out)) as run:
        for step in range(1, 1000):
            run.log(step, {"loss": 1.0})
except InstilError as error:
    sys.exit(f"{step if 'step' in globals() else 0} {error}")
"""


def on_a_full_disk(out, limit):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(out), str(limit)], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    step, _, message = done.stderr.strip().partition(" ")
    assert "\n" not in message
    return int(step), message


def test_a_disk_that_fills_up_loses_the_torn_line_only(out):
    # '{"step":1,"loss":1.0}\n' has 22 bytes, 23 from step 10, 24 from step 100:
    # 9 * 22 + 90 * 23 = 2268, then (4000 - 2268) / 24 = 72.2, so step 99 + 73 = 172 is torn
    step, message = on_a_full_disk(out, 4000)
    assert step == 172
    assert message == (
        f"{out / 'metrics.jsonl'}: cannot be written: File too large; "
        "make room and start the same command again"
    )
    assert len(read_lines(out / "metrics.jsonl")) == 171
    with Run.open(out, "sft", FullDiskConfig(out)) as run:
        run.rewind(171)
        run.log(172, {"loss": 1.0})
    assert [row["step"] for row in read_lines(out / "metrics.jsonl")] == list(range(1, 173))


@dataclass(frozen=True)
class FullDiskConfig:
    """The config of `FULL_DISK`, to resume it."""

    out: Path


def test_a_disk_that_is_full_from_the_start_leaves_nothing(out):
    step, message = on_a_full_disk(out, 16)
    assert step == 0
    assert message.startswith(f"{out / 'run.json'}: cannot be written: File too large")
    assert not (out / "run.json").exists()
    assert not list(out.glob(".*")), "no litter"


def test_write_json_is_whole_or_as_before(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"n": 1})

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jsonl.os, "replace", full)
    with pytest.raises(InstilError, match=r"No space left on device; make room and start the same"):
        write_json(tmp_path / "a.json", {"n": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
