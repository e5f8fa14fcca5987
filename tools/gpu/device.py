"""The device, its datasheet's peak, and the versions of what it runs."""

import importlib.metadata
import importlib.util
import platform
import re
import subprocess
import time

from gpu import report

# Dense bfloat16 products of tensor cores, FLOPs a second, by a pattern over
# jax's device_kind; the first that matches. From NVIDIA's datasheets of each,
# where the figures of H100, H200 and L4 are "with sparsity", twice the dense
# ones.
PEAKS = (
    ("H200 NVL", 835.5e12),  # 1,671 with sparsity
    ("H200", 989.5e12),  # SXM: 1,979
    ("H100 NVL", 835.5e12),  # 1,671
    ("H100.*PCIe", 756.5e12),  # 1,513
    ("H100", 989.5e12),  # SXM: 1,979
    ("A100", 312e12),
    ("L4$", 121e12),  # 242
)
# What a pretraining run imports, by module; the rest is for other commands.
MODULES = ("jax", "flax", "optax", "orbax.checkpoint", "grain",
           "array_record", "tensorflow_datasets", "tensorboardX", "tokenizers",
           "sentencepiece", "safetensors", "argcomplete", "filelock",
           "google_crc32c", "importlib_resources", "markdown_it", "matplotlib",
           "packaging", "pyarrow", "rich", "scipy", "sklearn",
           "huggingface_hub")
COMPARED = ("torch", "transformers")
_SIDE = 8192  # of the square product whose speed is measured


def peak(kind):
  """FLOPs a second by the datasheet; None: it is not known here."""
  return next((flops for pattern, flops in PEAKS if re.search(pattern, kind)),
              None)


def missing(modules):
  """Those that cannot be imported."""

  def there(module):
    try:
      return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # Of what it lies in.
      return False

  return [module for module in modules if not there(module)]


def check(options):
  """Rows on the device and on versions."""
  import jax
  import jax.numpy as jnp

  device = jax.devices()[0]
  kind, flops = device.device_kind, peak(device.device_kind)
  row = lambda name, value: report.row("machine", name, value=value)
  row("device", f"{jax.device_count()} x {kind}")
  row("compute capability", getattr(device, "compute_capability", None))
  row("memory, GiB", (device.memory_stats() or {}).get(
      "bytes_limit", 0) / 2**30 or None)
  row("driver", _driver())
  row("platform", device.client.platform_version.replace("\n", " "))
  row("peak by the datasheet, bfloat16 TFLOP/s", flops and flops / 1e12)
  side = 256 if options.short else _SIDE
  x_LM = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)
  product = jax.jit(lambda x_LM: x_LM @ x_LM)
  product(x_LM).block_until_ready()
  start, count = time.perf_counter(), 3 if options.short else 30
  for _ in range(count):
    y_LM = product(x_LM)
  y_LM.block_until_ready()
  row(f"seen, a product of {side} x {side}",
      2 * side**3 * count / (time.perf_counter() - start) / 1e12)
  row("Python", platform.python_version())
  for name in ("jax", "jaxlib", "flax", "optax", "torch", "transformers",
               "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"):
    try:
      row(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
      pass
  row("commit", _output("git", "rev-parse", "--short", "HEAD"))
  if jax.default_backend() != "gpu":
    report.note(f"jax runs on {jax.default_backend()} here, not on a GPU: "
                "speeds say nothing.")
  if lacking := missing(MODULES):
    report.note(f"Not installed here: {', '.join(lacking)}.")


def _driver():
  return _output("nvidia-smi", "--query-gpu=driver_version",
                 "--format=csv,noheader")


def _output(*command):
  try:
    return subprocess.run(command, text=True, capture_output=True,
                          check=True).stdout.strip().replace("\n", ", ")
  except (OSError, subprocess.CalledProcessError):
    return None
