# Sourced by the other scripts: makes the Python environment, or finds it made,
# and leaves its interpreter in $python and the checkout's root in $checkout.
#
#   BERT_JAX_VENV  folder of the environment (default: .venv in the checkout) or
#                  "system": install what is missing into the running Python and
#                  leave its jax, libtpu, flax alone (default in Colab, Kaggle)
#   PYTHON         the interpreter to start from (default: the first that fits)
set -euo pipefail

say() { echo "environment: $*" >&2; }
fail() { say "$@"; exit 1; }

fit() {
  "$1" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null
}

find_uv() {
  local candidate
  for candidate in uv "${HOME:-}/.local/bin/uv"; do
    if "$candidate" --version >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    fit "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 or newer"
    command -v "$PYTHON"
    return
  fi
  for candidate in python3.12 python3.13 python3.11 python3; do
    if fit "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  # uv downloads an interpreter where there is none.
  [ -n "$uv" ] || fail "Python 3.11 or newer is needed, and python3 is" \
    "'$(python3 --version 2>&1)'. Either name one (PYTHON=/path/to/python) or" \
    "install uv, which brings its own: python3 -m pip install --user uv"
  echo 3.12
}

# The extra of setup.cfg that this machine's accelerator needs, with a comma.
accelerator() {
  local driver
  if compgen -G '/dev/accel[0-9]*' >/dev/null ||
    { compgen -G '/dev/vfio/[0-9]*' >/dev/null && # others use vfio, too
      grep -qs 0x1ae0 /sys/bus/pci/devices/*/vendor; }; then
    say "found a TPU: installing the extra [tpu]"
    echo ,tpu
  elif driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader \
    2>/dev/null); then
    local extra=cuda
    [ "${driver%%.*}" -ge 580 ] || extra=cuda12
    say "found a GPU: installing the extra [$extra]"
    echo ",$extra"
  fi
}

# uv is several times faster; pip knows about settings that uv ignores.
install() {
  if [ -n "$uv" ]; then
    "$uv" pip install --python "$python" "$@" && return
    say "uv failed, trying pip"
  fi
  "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip
  "$python" -m pip install "$@"
}

make_venv() {
  if [ -e "$stamp" ] || [ -e "$unfinished" ]; then
    say "making $venv again (unfinished, or the requirements changed)"
    touch "$unfinished"
    rm -rf "$venv"
  elif [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
    fail "$venv exists and was not made by this script: remove it, name" \
      "another folder (BERT_JAX_VENV=...), or activate it and say" \
      "BERT_JAX_VENV=system"
  fi
  local base
  base=$(find_python)
  mkdir -p "$(dirname "$venv")"
  touch "$unfinished"
  if [ -n "$uv" ]; then
    "$uv" venv --quiet --python "$base" "$venv"
  else
    "$base" -m venv "$venv" || fail "$base cannot make an environment; on" \
      "Debian and Ubuntu: apt install python3-venv"
    if "$python" -m pip install --quiet uv; then
      uv=$venv/bin/uv
    fi
  fi
  # Else every process compiles what it imports where a container sets
  # PYTHONDONTWRITEBYTECODE; pip compiles by itself.
  export UV_COMPILE_BYTECODE=1
  install -e "$checkout[test$(accelerator)]"
  finish
  rm "$unfinished"
}

# What notebooks bring fits together (and fits the TPU): it is left as it is.
install_beside_jax() {
  fit "$python" || fail "$python is no Python 3.11 or newer"
  local constraints
  constraints=$(mktemp)
  "$python" - >"$constraints" <<'EOF'
from importlib import metadata
for package in ("jax", "jaxlib", "libtpu", "flax", "numpy"):
  try:
    print(f"{package}=={metadata.version(package)}")
  except metadata.PackageNotFoundError:
    pass
EOF
  say "installing into $python beside" $(cat "$constraints")
  install --constraint "$constraints" -e "$checkout[test]"
  rm "$constraints"
  finish
}

finish() {
  fingerprint >"$stamp"
  echo "${PYTHON:-}" >>"$stamp"
}

fingerprint() {
  cat "$checkout"/{setup.cfg,pyproject.toml,tools/environment.sh} | cksum
  echo "$checkout $python"
}

ready() {
  [ "$(head -n 2 "$stamp" 2>/dev/null)" = "$(fingerprint)" ] &&
    [ "${PYTHON:-$(tail -n 1 "$stamp")}" = "$(tail -n 1 "$stamp")" ] &&
    [ ! -e "$unfinished" ] && "$python" -c '' 2>/dev/null
}

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$checkout/.venv
if [ -n "${COLAB_RELEASE_TAG:-}${KAGGLE_KERNEL_RUN_TYPE:-}" ]; then
  venv=system
fi
venv=${BERT_JAX_VENV:-$venv}
if [ "$venv" = system ]; then
  python=$(command -v "${PYTHON:-python3}")
  stamp=$checkout/.venv.system
  unfinished=$stamp.unfinished
else
  [[ $venv = /* ]] || venv=$PWD/$venv
  python=$venv/bin/python
  stamp=$venv/bert_jax.finished
  unfinished=$venv.unfinished
fi

if ! ready; then
  exec 9>"$checkout/.venv.lock" # one install at a time
  if command -v flock >/dev/null; then flock 9; fi
  if ! ready; then
    uv=$(find_uv)
    if [ "$venv" = system ]; then install_beside_jax; else make_venv; fi
  fi
  exec 9>&-
fi
