"""Programs that several runs of a process share.

Runs of a study that differ in the seed take the same steps, which take longer
to trace than small ones to run. Outside of `shared` nothing is kept: in a
notebook what is traced may be defined again between two runs.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any

# A study does one seed of every arm before the next one, and an arm has some
# five: those of a dozen arms.
_MOST = 64

_KEPT: contextvars.ContextVar[dict[Hashable, Any] | None] = (
    contextvars.ContextVar("programs", default=None))


@contextlib.contextmanager
def shared() -> Iterator[None]:
  """Runs inside share the programs of equal ones."""
  token = _KEPT.set({} if _KEPT.get() is None else _KEPT.get())
  try:
    yield
  finally:
    _KEPT.reset(token)


def once(key: Callable[..., Hashable]) -> Callable[..., Any]:
  """A decorator: inside `shared`, what is made for a key is made once.

  Args:
    key: of the arguments of what is decorated.
  """

  def decorate(make: Callable[..., Any]) -> Callable[..., Any]:

    @functools.wraps(make)
    def call(*arguments: Any) -> Any:
      kept = _KEPT.get()
      if kept is None:
        return make(*arguments)
      of = make, key(*arguments)
      try:
        hash(of)
      except TypeError:  # A page's choice that has no hash.
        return make(*arguments)
      made = kept.pop(of) if of in kept else make(*arguments)
      kept[of] = made  # The latest is the last one.
      if len(kept) > _MOST:
        del kept[next(iter(kept))]
      return made

    return call

  return decorate
