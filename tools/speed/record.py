"""What was measured, line by line in benchmarks/results.jsonl, and the tables
of the documents, which are made from it."""

import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results.jsonl"
DOCUMENT = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- benchmarks/results.jsonl -->", "<!-- end of it -->"


def append(record, path=RESULTS):
  """Adds a line: the record, when, of which commit and on what machine."""
  path.parent.mkdir(exist_ok=True)
  line = {"when": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M}",
          "commit": commit(), "hardware": hardware(), **record}
  with path.open("a", encoding="utf-8") as file:
    file.write(json.dumps(line) + "\n")
  return line


def commit():
  """Of this checkout, with a + where files differ from it."""
  git = lambda *words: subprocess.run(
      ["git", *words], cwd=ROOT, check=True, text=True,
      stdout=subprocess.PIPE).stdout.strip()
  changed = git("status", "--porcelain", "--untracked-files=no", "bert_jax")
  return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)


def hardware():
  """The processor, its cores, and how many programs wanted one just now."""
  lines = pathlib.Path("/proc/cpuinfo")
  names = [line.partition(": ")[2] for line in lines.read_text().splitlines()
           if line.startswith("model name")] if lines.exists() else []
  return {"processor": (names or [platform.processor()])[0],
          "cores": len(os.sched_getaffinity(0)),
          "load": round(os.getloadavg()[0], 1)}


def latest(lines):
  """The last record of each kind of work and number of cores."""
  chosen = {}
  for line in lines:
    record = json.loads(line)
    key = record["work"], record["cores"], record.get("against", "")
    chosen.pop(key, None)
    chosen[key] = record
  return list(chosen.values())


def table(record):
  """A record in Markdown: a table and the sentence that it needs."""
  head = ["contender", "ms on the clock", "ms of the cores", "ratio, clock",
          "ratio, cores", "first, s"]
  rows = [[c["label"], f"{c['clock']:.0f}", f"{c['cores']:.0f}",
           f"{c['clock_ratio']:.2f}", f"{c['cores_ratio']:.2f}",
           f"{c['first']:.1f}"] for c in record["contenders"]]
  sheet = ["| " + " | ".join(cells) + " |" for cells in (
      head, ["---", *["---:"] * (len(head) - 1)], *rows)]
  machine = record["hardware"]
  # Whole commands do not say them.
  versions = ", ".join(record["versions"])
  versions += "; " * bool(versions)
  cores = "one core" if record["cores"] == 1 else f"{record['cores']} cores"
  return "\n".join([
      f"**{record['title']}**, {cores}:", "", *sheet, "",
      f"Medians of {record['rounds']} interleaved rounds; {versions}"
      f"{machine['processor']}, load "
      f"{machine['load']} at the end; commit {record['commit']}, "
      f"{record['when']}."])


def written(document, lines):
  """A document with the tables of the latest records between its marks."""
  before, begin, rest = document.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not begin or not end:
    sys.exit(f"{DOCUMENT} needs the lines {BEGIN} and {END}.")
  tables = "\n\n".join(map(table, latest(lines)))
  return f"{before}{begin}\n\n{tables}\n\n{end}{after}"


def write_document():
  DOCUMENT.write_text(written(
      DOCUMENT.read_text("utf-8"), RESULTS.read_text("utf-8").splitlines()),
      "utf-8")
