"""Any optimizer of optax, by its name there."""

import ast
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.config import UserError, nearest
from bert_jax.training import numerics
from bert_jax.training.optimizers import (
    Optimizer, decayed, matrices, without_rate)

Factory = Callable[..., optax.GradientTransformation]

# Arguments that follow from the parameters' paths, as in the other members.
_FROM_PATHS = {"mask": decayed, "weight_decay_mask": decayed,
               "muon_weight_dimension_numbers": matrices}


@dataclasses.dataclass(frozen=True)
class OptaxOptimizer(Optimizer, name="optax"):
  """Any optimizer of optax or optax.contrib, by its name.

  The run's schedule takes the place of its learning rate, so that its update
  must be proportional to that. Where it can leave parameters out of weight
  decay, those are left out that the other optimizers leave out.

  Attributes:
    name: the optimizer's name in optax, as adafactor or radam.
    options: the optimizer's arguments, as in b1=0.95,weight_decay=0.1.
  """

  name: str = "adamw"
  options: tuple[str, ...] = ()

  def __post_init__(self):
    _arguments(self.name, self.options)

  def rule(self) -> optax.GradientTransformation:
    return _rule(self.name, self.options)


@functools.cache
def _rule(name: str, options: tuple[str, ...]) -> optax.GradientTransformation:
  """
  Raises:
    UserError: its arguments do not fit, or its update is not proportional to
      its learning rate.
  """
  factory, arguments = _factory(name), _arguments(name, options)
  parameters = inspect.signature(factory).parameters
  arguments |= {key: value for key, value in _FROM_PATHS.items()
                if key in parameters}
  try:
    two, one = (_updates(factory(rate, **arguments)) for rate in (2.0, 1.0))
  except Exception as error:  # Of optax, for whatever does not suit it.
    raise UserError(f"optimizer.name={name} optimizer.options="
                    f"{','.join(options)}: {error}") from error
  if not all(np.allclose(a, 2 * b, rtol=1e-3) for a, b in zip(two, one)):
    raise UserError(
        f"optimizer.name={name}: its update is not proportional to its "
        "learning rate, so that the run's schedule cannot take its place.")
  return without_rate(factory(1.0, **arguments))


def _updates(rule: optax.GradientTransformation) -> list[jax.Array]:
  """The leaves of two updates of a small matrix."""

  def updates() -> Any:
    params = {"kernel": jnp.linspace(1.0, 2.0, 16).reshape(4, 4)}
    gradients = jax.tree.map(jnp.sin, params)
    first, state = rule.update(gradients, rule.init(params), params)
    return first, rule.update(gradients, state, params)[0]

  with jax.numpy_dtype_promotion("standard"):
    return jax.tree.leaves(numerics.jit(updates)())


def _factory(name: str) -> Factory:
  """
  Raises:
    UserError: optax has no such optimizer.
  """
  for module in (optax, optax.contrib):
    if name in _names(module):
      return getattr(module, name)
  raise UserError(f"optimizer.name={name}: no optimizer of optax" + nearest(
      name, sorted({*_names(optax), *_names(optax.contrib)})))


@functools.cache
def _names(module: Any) -> list[str]:
  """What of a module makes an optimizer of a learning rate alone."""
  names = []
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of names that optax deprecates.
    for name in dir(module):
      value = getattr(module, name)
      if inspect.isfunction(value) and not name.startswith("scale_by"):
        parameters = inspect.signature(value).parameters
        required = {key for key, parameter in parameters.items()
                    if parameter.default is parameter.empty}
        names += [name] * ("learning_rate" in parameters
                           and required <= {"learning_rate"})
  return names


def _arguments(name: str, options: tuple[str, ...]) -> dict[str, Any]:
  """
  Raises:
    UserError: no such optimizer, or it takes no such argument.
  """
  allowed = {key: parameter for key, parameter
             in inspect.signature(_factory(name)).parameters.items()
             if key not in ("learning_rate", *_FROM_PATHS)}
  arguments = {}
  for option in options:
    key, _, text = option.partition("=")
    if key not in allowed or not text:
      defaults = ",".join(f"{k}={p.default}" for k, p in allowed.items())
      raise UserError(f"optimizer.options={option}: {name} has the options "
                      f"{defaults}" + nearest(key, allowed))
    arguments[key] = _value(text)
  return arguments


def _value(text: str) -> Any:
  if text in ("true", "false"):
    return text == "true"
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
