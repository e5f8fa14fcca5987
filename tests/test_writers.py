import io
import json
import math

import numpy as np
import pytest
import rich.console
from tensorboardX.proto import event_pb2

from bert_jax import writers
from bert_jax.config import UserError


def console(**options):
  return rich.console.Console(file=io.StringIO(), width=200, **options)


def test_lines_are_readable_at_once_and_valid_json(tmp_path):
  path = tmp_path / "metrics.jsonl"
  out = writers.JsonLines(path)
  out.write(1, {"train/loss": np.float32(2.5), "x": math.nan, "y": math.inf})
  assert json.loads(path.read_text()) == {
      "step": 1, "train/loss": 2.5, "x": None, "y": None}
  line, = writers.read_jsonl(path)
  assert line["train/loss"] == 2.5 and math.isnan(line["x"])
  out.close()


def test_a_resumed_run_has_no_step_twice(tmp_path):
  path = tmp_path / "metrics.jsonl"
  out = writers.JsonLines(path)
  for step in (1, 2, 3, 4):
    out.write(step, {"loss": step})
  out.close()
  path.write_text(path.read_text() + '{"step": 5, "lo')  # killed
  assert len(writers.read_jsonl(path)) == 4
  out = writers.JsonLines(path, start=2)
  out.write(3, {"loss": 30})
  out.close()
  kept = [(line["step"], line["loss"]) for line in writers.read_jsonl(path)]
  assert kept == [(1, 1), (2, 2), (3, 30)]


@pytest.mark.parametrize("line", ["{", "3", "null", '{"loss": 1}'])
def test_a_broken_line_is_named(tmp_path, line):
  path = tmp_path / "metrics.jsonl"
  path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
  with pytest.raises(UserError, match="line 2"):
    writers.read_jsonl(path)


def test_progress_prints_lines_where_there_is_no_terminal():
  to = console()
  progress = writers.Progress(40, start=20, console=to, every=0)
  progress.advance(30)
  progress.write(30, {"train/loss": 2.34567, "train/tokens_per_second": 12345})
  progress.write(30, {"held_out/loss": 2.5, "held_out/accuracy": .25})
  progress.close()
  training, held_out = to.file.getvalue().splitlines()
  assert training == "30/40  loss 2.346  12.3k tokens/s  0:00 left"
  assert held_out == "30/40  held out: loss 2.5  accuracy 0.25"


def test_lines_of_training_are_rare_but_the_last_is_there():
  to = console()
  progress = writers.Progress(50, console=to, every=1000)
  for step in range(1, 51):
    progress.write(step, {"train/loss": 1, "train/tokens_per_second": 900})
  progress.close()
  lines = to.file.getvalue().splitlines()
  assert [line.split()[0] for line in lines] == ["1/50", "50/50"]
  assert "900 tokens/s" in lines[0]


def test_progress_draws_a_bar_on_a_terminal():
  to = console(force_terminal=True)
  progress = writers.Progress(10, console=to)
  progress.write(5, {"train/loss": 1.5, "train/tokens_per_second": 2000})
  progress.write(5, {"held_out/loss": 2.5})
  progress.close()
  text = to.file.getvalue()
  assert "━" in text and "5/10  loss 1.5  2.0k tokens/s" in text
  assert "held out: loss 2.5" in text


def events(folder):
  for path in sorted(folder.iterdir()):
    data = path.read_bytes()
    while data:  # length, its checksum, event, its checksum
      size = int.from_bytes(data[:8], "little")
      yield event_pb2.Event.FromString(data[12:12 + size])
      data = data[16 + size:]


def test_writers_write_everywhere(tmp_path):
  out = writers.Writers(tmp_path, steps=8, start=3)
  out.advance(4)
  out.write(4, {"train/loss": 1.5, "train/tokens_per_second": 10.0})
  out.close()
  assert writers.read_jsonl(tmp_path / "metrics.jsonl")[0]["train/loss"] == 1.5
  found = list(events(tmp_path / "tensorboard"))
  assert [event.step for event in found if event.HasField("session_log")] == [4]
  assert {(event.step, value.tag, value.simple_value)
          for event in found for value in event.summary.value} == {
              (4, "train/loss", 1.5), (4, "train/tokens_per_second", 10.0)}


def test_pictures_are_drawn(tmp_path):
  path = tmp_path / "metrics.jsonl"
  out = writers.JsonLines(path)
  writers.plot_curves(path, tmp_path / "none.png")
  for step in range(1, 20):
    out.write(step, {"train/loss": 5 / step, "train/mlm_accuracy": step / 20})
  out.write(19, {"held_out/loss": 1.0, "held_out/mlm_accuracy": math.nan})
  out.close()
  writers.plot_curves(path, tmp_path / "curves.png")
  writers.plot_table({"scratch": [.4, .5], "pretrained": [.6]},
                     tmp_path / "table.png", "Tagging", "entity F1")
  assert not (tmp_path / "none.png").exists()
  for name in ("curves", "table"):
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_table():
  assert writers.table(("variant", "F1"), [("scratch", .41234), ("x", 5)]) == (
      "| variant |     F1 |\n"
      "| ------- | -----: |\n"
      "| scratch | 0.4123 |\n"
      "| x       |      5 |")
