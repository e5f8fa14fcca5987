"""Choices, pages, overrides and changes: how an experiment is written down.

An experiment is a tree of frozen dataclasses. Where it has alternatives, a
field is a *choice*: its type is a family, its value one member of the family.

  @dataclasses.dataclass(frozen=True)
  class Window(Attention):        # selected by model.attention=window
    reach: int = 8                # set by model.attention.reach=16

A config page is a Python file that binds `experiment`; it may define members
of its own, and build on other pages. Each page is a module of its own, so that
two of them may call different members alike: an experiment means those of its
pages. `override(base, changes(base, run)) == run` holds for every pair.
"""

from bert_jax.config.choices import (
    Choice, changes, described_changes, options, override)
from bert_jax.config.errors import (
    UserError, nearest, nearest_keys, users_line, wrapped)
from bert_jax.config.pages import (
    PAGES, Page, load_page, page_names, page_source, pages_of, run_page,
    visible_modules)
from bert_jax.config.ranges import (
    Count, Decay, Fraction, Percent, Signed, check_ranges)

__all__ = [
    "PAGES", "Choice", "Count", "Decay", "Fraction", "Page", "Percent",
    "Signed", "UserError", "changes", "check_ranges", "described_changes",
    "load_page", "nearest", "nearest_keys", "options", "override",
    "page_names", "page_source", "pages_of", "run_page", "users_line",
    "visible_modules", "wrapped"]
