#!/usr/bin/env bash
# The tests: prepares the environment once, then runs pytest, one file at a time on each of up to four cores.
# Without arguments the tests with vLLM run beside them, in an environment of their own (scripts/prepare_vllm.sh),
# where the platform has it.  Options are pytest's, e.g.
#   ./run_tests.sh tests/test_scoring.py -k cover
#   ./run_tests.sh -n 0 -x                             one after the other, until the first failure
#   ./run_tests.sh tests_vllm                          those with vLLM alone
# ZEROSEARCH_SHARED_DATA names the folder with the real data slices; see tests/conftest.py.
# ZEROSEARCH_VLLM=skip leaves those with vLLM out; in continuous integration they cannot be left out.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
cd "$here"
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false

with_vllm() {  # in the place of this shell
  local python
  python="$("$here/scripts/prepare_vllm.sh")"
  exec "$python" -m pytest --numprocesses auto --maxprocesses 2 --dist loadfile "$@"
}

if [[ "${1:-}" == tests_vllm* ]]; then with_vllm "$@"; fi
python="$("$here/scripts/prepare_env.sh")"
beside=""
if [ "$#" -eq 0 ] && [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] && [ "${CI:-}${ZEROSEARCH_VLLM:-}" != skip ]; then
  said="$(mktemp)"  # meanwhile, one after the other: the others wait often enough; told when they have ended
  with_vllm --maxprocesses 1 tests_vllm >"$said" 2>&1 &
  beside=$!
  trap 'kill "$beside" 2>/dev/null || true; rm -f "$said"' EXIT
fi
failed=0
"$python" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@" || failed=$?
if [ -n "$beside" ]; then
  wait "$beside" || failed=$?
  cat "$said"
fi
exit "$failed"
