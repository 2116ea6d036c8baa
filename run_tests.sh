#!/usr/bin/env bash
# The tests: prepares the environment once, then runs pytest, one file at a time on each of up to four cores.
# Options are pytest's, e.g.
#   ./run_tests.sh tests/test_scoring.py -k cover
#   ./run_tests.sh -n 0 -x                             one after the other, until the first failure
# ZEROSEARCH_SHARED_DATA names the folder with the real data slices; see tests/conftest.py.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
python="$("$here/scripts/prepare_env.sh")"
cd "$here"
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false
exec "$python" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
