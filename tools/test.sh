#!/usr/bin/env bash
# From a bare clone to tested. Arguments go to pytest; -n 0 runs all in one process.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"
exec "$python" -m pytest -n 2 --dist worksteal "$@"
