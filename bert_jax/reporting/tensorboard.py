"""Numbers as TensorBoard events."""

import pathlib
import time
from collections.abc import Mapping, Sequence

from bert_jax.files import writing


class TensorBoard:
  """One event file, rewritten at every start.

  A run that was stopped often would leave many files, some with steps that
  were repeated later.

  Args:
    folder: gets the file; older event files there are removed.
    lines: what a JsonLines holds already; their time becomes that of this
      start.
  """

  def __init__(self, folder: pathlib.Path,
               lines: Sequence[Mapping[str, float]] = ()):
    # The events are written synchronously. SummaryWriter's thread ends at a
    # full disk, and its close() waits for that thread forever.
    from tensorboardX.event_file_writer import EventsWriter  # Slow to import.
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    self._folder = folder
    with writing(folder):
      folder.mkdir(exist_ok=True)
      for path in folder.glob("events.out.tfevents.*"):
        path.unlink()
      self._writer = EventsWriter(str(folder / "events"))
      # Has a TensorBoard that is open drop what it read of older files.
      self._writer.write_event(Event(
          wall_time=time.time(),
          session_log=SessionLog(status=SessionLog.START)))
      for line in lines:
        self._add(line["step"],
                  {name: v for name, v in line.items() if name != "step"})
      self._writer.flush()

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    with writing(self._folder):
      self._add(step, scalars)
      self._writer.flush()

  def _add(self, step: int, scalars: Mapping[str, float]) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    self._writer.write_event(Event(
        wall_time=time.time(), step=int(step), summary=Summary(value=[
            Summary.Value(tag=name, simple_value=float(value))
            for name, value in scalars.items()])))

  def close(self) -> None:
    with writing(self._folder):
      self._writer.close()
