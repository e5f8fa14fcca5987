#!/usr/bin/env bash
# The pages of docs/ as a site in .site. Arguments go to `mkdocs build`.
#
# The reference is read from the source and imports nothing: the environment,
# .venv.docs, has the extra [docs] of setup.cfg, and neither jax nor bert_jax.
#
#   PYTHON  the interpreter to start from (default: python3)
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$checkout/.venv.docs
stamp=$venv/bert_jax.finished
requirements=$(sed -n '/^docs =/,/^[^ ]/s/^ \+//p' "$checkout/setup.cfg")
if [ "$(cat "$stamp" 2>/dev/null)" != "$requirements" ]; then
  rm -rf "$venv"
  "${PYTHON:-python3}" -m venv "$venv"
  # Each line is a requirement.
  "$venv/bin/python" -m pip install --quiet $requirements
  echo "$requirements" >"$stamp"
fi
# What the theme has to say of its own future is no warning about our pages.
export NO_MKDOCS_2_WARNING=1
exec "$venv/bin/mkdocs" build --strict --config-file \
  "$checkout/tools/mkdocs.yml" "$@"
