#!/usr/bin/env bash
# The suite with the lowest versions that setup.cfg allows, on Python 3.11: the
# bounds are what passes. Arguments go to pytest.
export UV_RESOLUTION=lowest-direct PYTHON=${PYTHON:-python3.11}
export BERT_JAX_VENV="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv.lowest"
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"
"$python" - <<'END'
import re
import sys
from importlib import metadata

newer = [
    f"{name} {metadata.version(name)} is installed, not {bound}"
    for requirement in metadata.requires("bert_jax") or ()
    if "extra ==" not in requirement or 'extra == "test"' in requirement
    for name, bound in re.findall(r"^([\w-]+)[^;]*?>=([\d.]+)", requirement)
    if not metadata.version(name).startswith(bound)]
sys.exit("\n".join(newer) or None)
END
exec "$python" -m pytest -n 2 --dist worksteal "$@"
