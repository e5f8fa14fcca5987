import inspect
import io
import json
import math
import pathlib
import re
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import rich.cells
import rich.console
from tensorboardX.proto import event_pb2

from bert_jax.config import UserError
from bert_jax.reporting import jsonl, markdown, plots, terminal, writers
from tests import small_disk


def console(**options):
  return rich.console.Console(file=io.StringIO(), width=200, **options)


def test_lines_are_readable_at_once_and_valid_json(tmp_path):
  path = tmp_path / "metrics.jsonl"
  out = jsonl.JsonLines(path)
  out.write(1, {"train/loss": np.float32(2.5), "x": math.nan, "y": math.inf})
  assert json.loads(path.read_text()) == {
      "step": 1, "train/loss": 2.5, "x": None, "y": None}
  line, = jsonl.read_jsonl(path)
  assert line["train/loss"] == 2.5 and math.isnan(line["x"])
  out.close()


def test_resumed_run_has_no_step_twice(tmp_path):
  path = tmp_path / "metrics.jsonl"
  out = jsonl.JsonLines(path)
  for step in (1, 2, 3, 4):
    out.write(step, {"loss": step})
  out.close()
  path.write_text(path.read_text() + '{"step": 5, "lo')  # killed
  assert len(jsonl.read_jsonl(path)) == 4
  out = jsonl.JsonLines(path, start=2)
  out.write(3, {"loss": 30})
  out.close()
  kept = [(line["step"], line["loss"]) for line in jsonl.read_jsonl(path)]
  assert kept == [(1, 1), (2, 2), (3, 30)]


@pytest.mark.parametrize("line", ["{", "3", "null", '{"loss": 1}'])
def test_broken_line_is_named(tmp_path, line):
  path = tmp_path / "metrics.jsonl"
  path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
  with pytest.raises(UserError, match="line 2"):
    jsonl.read_jsonl(path)


def test_progress_prints_lines_without_a_terminal():
  to = console()
  progress = terminal.Progress(40, start=20, name="rms, seed 3", console=to,
                               every=0)
  progress.advance(30)
  progress.write(30, {
      "train/gradient_norm": .5, "train/loss": 2.34567, "train/accuracy": .1,
      "train/mlm_loss": 2.34567, "train/perplexity": 10.4,
      "train/tokens_per_second": 12345})
  progress.write(30, {"held_out/loss": 2.5, "held_out/accuracy": .25})
  progress.close()
  compiling, training, held_out = to.file.getvalue().splitlines()
  assert compiling == "rms, seed 3: compiling"
  # The loss first, and nothing that says the same.
  assert re.fullmatch(
      r"rms, seed 3: 30/40  loss 2.346  accuracy 0.1  gradient_norm 0.5  "
      r"12.3k tokens/s  0:00:\d\d left", training)
  assert held_out == "rms, seed 3: 30/40  held out: loss 2.5  accuracy 0.25"


def test_stage_that_takes_long_is_named(capsys):
  with terminal.named("reading", after=0.01):
    time.sleep(0.1)
  with terminal.named("writing", after=10.0):
    pass
  assert capsys.readouterr().err == "reading ...\n"


def test_training_lines_are_rare_but_include_the_last():
  to = console()
  progress = terminal.Progress(50, console=to, every=1000)
  for step in range(1, 51):
    progress.write(step, {"train/loss": 1, "train/tokens_per_second": 900})
  progress.close()
  _, *lines = to.file.getvalue().splitlines()
  assert [line.split()[0] for line in lines] == ["1/50", "50/50"]
  assert "900 tokens/s" in lines[0]


def test_progress_draws_a_bar_on_a_terminal():
  to = console(force_terminal=True)
  progress = terminal.Progress(10, console=to)
  progress.write(5, {"train/loss": 1.5, "train/tokens_per_second": 2000})
  progress.write(5, {"held_out/loss": 2.5})
  progress.close()
  text = to.file.getvalue()
  assert "━" in text and "5/10" in text and "loss 1.5  2.0k tokens/s" in text
  assert "held out: loss 2.5" in text


def test_progress_bar_fits_a_narrow_terminal():
  to = rich.console.Console(file=io.StringIO(), width=80, force_terminal=True,
                            color_system=None)
  progress = terminal.Progress(1_000_000, console=to)
  progress.write(5, {f"train/number_{i}": i / 7 for i in range(20)})
  progress.close()
  _, _, drawn = to.file.getvalue().rpartition("\x1b[2K")
  line, _, _ = drawn.partition("\n")
  assert re.search(r"5/1000000 number_0 0  number_1 0.1429 +-:--:--", line)
  assert rich.cells.cell_len(line) <= 80


def test_progress_says_that_it_compiles():
  to = rich.console.Console(file=io.StringIO(), width=80, force_terminal=True,
                            color_system=None)
  progress = terminal.Progress(10, start=4, console=to)
  progress.close()
  assert re.search(r"4/10 compiling \(0 s\)", to.file.getvalue())


def test_notebook_has_a_bar_of_its_own(monkeypatch):
  """Of its own kind: one display that is updated, and no terminal's."""
  shown = []
  handle = types.SimpleNamespace(update=shown.append)
  shell = types.SimpleNamespace(kernel=None)
  monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(
      get_ipython=lambda: shell, display=types.SimpleNamespace(
          display=lambda value, display_id: shown.append(value) or handle)))
  progress = terminal.Progress(10)
  progress.write(5, {"train/loss": 1.5})
  progress.close()
  assert shown[0] == "compiling"
  assert '<progress value="5" max="10">' in shown[1]._repr_html_()
  assert "5/10  loss 1.5" in shown[1]._repr_html_()


def events(folder):
  for path in sorted(folder.iterdir()):
    data = path.read_bytes()
    while data:  # length, its checksum, event, its checksum
      size = int.from_bytes(data[:8], "little")
      yield event_pb2.Event.FromString(data[12:12 + size])
      data = data[16 + size:]


def test_writers_write_to_every_destination(tmp_path):
  out = writers.Writers(tmp_path, steps=8, start=3)
  out.advance(4)
  out.write(4, {"train/loss": 1.5, "train/tokens_per_second": 10.0})
  out.close()
  assert jsonl.read_jsonl(tmp_path / "metrics.jsonl")[0]["train/loss"] == 1.5
  written = list(events(tmp_path / "tensorboard"))
  assert {(event.step, value.tag, value.simple_value)
          for event in written for value in event.summary.value} == {
              (4, "train/loss", 1.5), (4, "train/tokens_per_second", 10.0)}


def test_resumed_run_has_one_event_file_without_stale_steps(tmp_path):
  (tmp_path / "tensorboard").mkdir()
  other = tmp_path / "tensorboard" / "profile"
  other.touch()
  for start in (0, 2, 2):
    out = writers.Writers(tmp_path, steps=8, start=start)
    for step in (start + 1, start + 2):
      out.write(step, {"train/loss": step + start / 10})
    out.close()
  other.unlink()
  assert len(list((tmp_path / "tensorboard").iterdir())) == 1
  first, restart, *written = events(tmp_path / "tensorboard")
  assert first.file_version == "brain.Event:2"
  assert restart.step == 0 and restart.session_log.status == 1  # START
  assert [(event.step, value.tag, round(value.simple_value, 4))
          for event in written for value in event.summary.value] == [
              (step, "train/loss", value)
              for step, value in ((1, 1), (2, 2), (3, 3.2), (4, 4.2))]


def test_notes_are_printed_to_stderr(tmp_path, capsys):
  out = writers.Writers(tmp_path, steps=8)
  out.note("[b] checkpoint 40 is damaged, using 20")
  out.close()
  assert "[b] checkpoint 40 is damaged, using 20\n" in capsys.readouterr().err


def test_silent_has_the_same_interface_and_writes_nothing(tmp_path, capfd):
  silent = writers.Silent()
  names = lambda kind: {n: inspect.signature(getattr(kind, n))
                        for n in vars(kind) if n[0] != "_"}
  assert names(writers.Silent) == names(writers.Writers)
  silent.note("x")
  silent.advance(1)
  silent.write(1, {"train/loss": 1.0})
  silent.close()
  assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())


FILL = """
import pathlib, sys
from bert_jax.config import UserError
from bert_jax.reporting import jsonl, plots, tensorboard, writers
disk = pathlib.Path({disk!r})

def until_full(name, writer, write):
  rest = open(disk / "rest", "wb", buffering=0)
  try:
    while rest.write(bytes(4096)):
      pass
  except OSError:
    pass
  for action in (lambda: [write(writer) for _ in range(4000)], writer.close):
    try:
      action()
    except UserError as error:
      print(name, error)
  rest.truncate(0)

row = lambda writer: writer.write(1, {{"train/loss": 1.0}})
until_full("lines:", jsonl.JsonLines(disk / "metrics.jsonl"), row)
until_full("board:", tensorboard.TensorBoard(disk / "board"), row)
until_full("both:", writers.Writers(disk, 3), row)
lines = jsonl.JsonLines(disk / "metrics.jsonl")
row(lines)
until_full("picture:", lines, lambda _: plots.plot_curves(
    disk / "metrics.jsonl", disk / "curves.png"))
"""


def test_full_disk_is_a_user_error(tmp_path):
  disk = tmp_path / "disk"
  ended = subprocess.run(
      [*small_disk.prefix(disk, 1), sys.executable, "-c",
       FILL.format(disk=str(disk))], cwd=pathlib.Path(__file__).parents[1],
      capture_output=True, text=True, timeout=60)
  assert ended.returncode == 0, ended.stderr
  assert "Traceback" not in ended.stderr and "ignored" not in ended.stderr
  why = "cannot be written: No space left on device."
  for name, file in (("lines", f"{disk}/metrics.jsonl"),
                     ("board", f"{disk}/board"),
                     ("both", f"{disk}/"), ("picture", f"{disk}/curves.png")):
    lines = [line for line in ended.stdout.splitlines()
             if line.startswith(f"{name}: {file}")]
    assert lines and all(line.endswith(why) for line in lines), ended.stdout


def test_plots_are_drawn(tmp_path):
  path = tmp_path / "metrics.jsonl"
  out = jsonl.JsonLines(path)
  plots.plot_curves(path, tmp_path / "none.png")
  for step in range(1, 20):
    out.write(step, {"train/loss": 5 / step, "train/mlm_accuracy": step / 20})
  out.write(19, {"held_out/loss": 1.0, "held_out/mlm_accuracy": math.nan})
  out.close()
  plots.plot_curves(path, tmp_path / "curves.png")
  plots.plot_table({"scratch": [.4, .5], "pretrained": [.6]},
                   tmp_path / "table.png", "Tagging", "entity F1")
  assert not (tmp_path / "none.png").exists()
  for name in ("curves", "table"):
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_table_is_aligned():
  assert markdown.table(("variant", "F1"), [("scratch", .41234), ("x", 5)]) == (
      "| variant |     F1 |\n"
      "| ------- | -----: |\n"
      "| scratch | 0.4123 |\n"
      "| x       |      5 |")
