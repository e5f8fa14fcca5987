"""tools/bench.py: what it keeps, and the tables that are made from it."""

import json

import pytest

from tools.speed import predicted, record

RECORD = {
    "work": "training", "title": "Training step", "cores": 1, "rounds": 9,
    "versions": ["jax 0.10.2"], "when": "2026-11-30 10:00", "commit": "abc",
    "hardware": {"processor": "Xeon", "cores": 2, "load": 0.1},
    "contenders": [{"label": "this project", "first": 4.0, "clock": 500.0,
                    "cores": 480.0, "clock_ratio": 1.0, "cores_ratio": 1.0}]}


def test_predictions_name_the_slower_part_first():
  part = lambda ms: {"seconds": ms / 1000, "products": 0.0, "memory": 0.0}
  before = {"step_seconds": 0.030, "exposed_seconds": 0.015, "parts": {
      "attention": part(10), "vocabulary and loss": part(5)}}
  after = {"step_seconds": 0.034, "exposed_seconds": 0.015, "parts": {
      "attention": part(10.5), "vocabulary and loss": part(8),
      "copies": part(0.5)}}
  assert predicted.rows(before, after) == [
      ["step", "30.00", "34.00", "+4.00"],
      ["vocabulary and loss", "5.00", "8.00", "+3.00"],
      ["attention", "10.00", "10.50", "+0.50"],
      ["copies", "0.00", "0.50", "+0.50"],
      ["waiting for other chips", "15.00", "15.00", "+0.00"]]


def test_document_has_the_latest_record_of_each_work():
  lines = [json.dumps(RECORD | more) for more in (
      {"commit": "old"}, {"cores": 2, "commit": "two"}, {"commit": "new"})]
  text = record.written(f"a\n{record.BEGIN}\nx\n{record.END}\nb", lines)
  assert text.startswith(f"a\n{record.BEGIN}\n\n**Training step**, 2 cores:")
  assert text.endswith(f"{record.END}\nb")
  assert "commit two" in text and "commit new" in text
  assert "commit old" not in text
  assert record.written(text, lines) == text
  with pytest.raises(SystemExit, match="needs the lines"):
    record.written("a", lines)


def test_document_is_made_from_the_results():
  text = record.DOCUMENT.read_text("utf-8")
  lines = record.RESULTS.read_text("utf-8").splitlines()
  assert record.written(text, lines) == text
