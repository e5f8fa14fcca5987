#!/usr/bin/env bash
# From a bare clone to a BERT that read real text and solved a real task.
# Arguments go to `bert-jax quickstart`.
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec "$python" -m bert_jax quickstart "$@"
