#!/usr/bin/env bash
# From a bare clone to tested: the suite, then what takes long: kills, hosts and
# notebooks as real processes, and what compiles a program for every member.
# Arguments go to pytest, which then runs once; -n 0 runs all in one process.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"
pytest() { "$python" -m pytest -n 2 --dist worksteal "$@"; }
if [ $# -gt 0 ]; then
  pytest "$@"
else
  pytest -m "not slow"
  pytest -m slow
fi
