"""Numbers as TensorBoard events."""

import os
import pathlib
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.files import writing


class TensorBoard:
  """One event file, written anew at every start.

  A file for every start of a run that is often stopped would be many, each
  with steps that were taken back. (Not tensorboardX's own writer: its thread
  dies of a full disk, and then it waits for that thread forever.)

  Args:
    folder: gets the file; older event files there go.
    lines: what a JsonLines holds already; their time becomes that of this
      start.
  """

  def __init__(self, folder: pathlib.Path,
               lines: Sequence[Mapping[str, float]] = ()):
    from tensorboardX.proto import event_pb2  # Not needed by most commands.
    self._events = event_pb2
    self._path = folder / (f"events.out.tfevents.{time.time():017.6f}."
                           f"{socket.gethostname()}")
    with writing(self._path):
      folder.mkdir(exist_ok=True)
      self._file = open(folder / "part", "wb")
      self._add(file_version="brain.Event:2")
      # A TensorBoard that looks on drops what it has read of older files.
      self._add(step=0, session_log=event_pb2.SessionLog(
          status=event_pb2.SessionLog.START))
      for line in lines:
        self.write(line["step"],
                   {name: v for name, v in line.items() if name != "step"})
      os.replace(folder / "part", self._path)
      for path in folder.glob("events.out.tfevents.*"):
        if path != self._path:
          path.unlink()

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    from tensorboardX.proto import summary_pb2
    values = [summary_pb2.Summary.Value(tag=name, simple_value=float(value))
              for name, value in scalars.items()]
    with writing(self._path):
      self._add(step=int(step), summary=summary_pb2.Summary(value=values))
      self._file.flush()

  def _add(self, **fields: Any) -> None:
    """Appends an event, framed as TFRecord frames it."""
    from tensorboardX.record_writer import masked_crc32c
    data = self._events.Event(wall_time=time.time(),
                              **fields).SerializeToString()
    length = struct.pack("<Q", len(data))
    for part in (length, data):
      self._file.write(part + struct.pack("<I", masked_crc32c(part)))

  def close(self) -> None:
    with writing(self._path):
      self._file.close()
