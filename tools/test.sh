#!/usr/bin/env bash
# From a bare clone to tested. Arguments go to pytest.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$checkout"
exec "$python" -m pytest "$@"
