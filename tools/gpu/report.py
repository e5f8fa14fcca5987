"""What a check obtained so far, as JSON and Markdown.

A part runs in a process of its own and prints a line of JSON for each row of a
table or note; what has been read of them is on disk after every line.
"""

import json
import pathlib
import sys


def row(table, name, **values):
  """Prints a row of a table; a later one of the same name replaces it.

  Args:
    table: the title.
    name: the first column.
    values: column by column, numbers or texts.
  """
  _line({"table": table, "name": name, "values": values})


def note(text):
  """Prints a sentence."""
  _line({"note": text})


def progress(text):
  """Says to who waits what is done now."""
  print(text, file=sys.stderr, flush=True)


def _line(record):
  print(json.dumps(record), flush=True)


class Report:
  """Parts in the order in which they came, in a folder."""

  def __init__(self, folder):
    self.folder = pathlib.Path(folder)
    self.folder.mkdir(parents=True, exist_ok=True)
    self.parts = {}

  def add(self, part, line):
    """Takes a line of a part's output; what is no JSON is ignored."""
    content = self.parts.setdefault(part, {"tables": {}, "notes": []})
    try:
      record = json.loads(line)
    except ValueError:
      return
    if "note" in record:
      content["notes"].append(record["note"])
    elif "table" in record:
      table = content["tables"].setdefault(record["table"], {})
      table[record["name"]] = record["values"]
    self._write()

  def note(self, part, text):
    """Adds a sentence on a part."""
    self.add(part, json.dumps({"note": text}))

  def _write(self):
    # A cut in between leaves the file of before.
    for name, text in (("gpu_check.json", json.dumps(self.parts, indent=1)),
                       ("gpu_check.md", self.markdown())):
      new = self.folder / f"{name}.new"
      new.write_text(text + "\n")
      new.replace(self.folder / name)

  def markdown(self):
    """A heading for each part, its tables and notes."""
    lines = []
    for part, content in self.parts.items():
      lines.append(f"## {part.capitalize()}\n")
      for title, rows in content["tables"].items():
        lines += [*_table(title, rows), ""]
      lines += [f"{text}\n" for text in content["notes"]]
    return "\n".join(lines)


def _table(title, rows):
  columns = list(dict.fromkeys(c for values in rows.values() for c in values))
  yield "| " + " | ".join((title, *columns)) + " |"
  yield "| --- |" + " ---: |" * len(columns)
  for name, values in rows.items():
    cells = (values.get(column, "") for column in columns)
    yield "| " + " | ".join((name, *map(_cell, cells))) + " |"


def _cell(value):
  if isinstance(value, float):
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
  return "-" if value is None else str(value).replace("|", "\\|")
