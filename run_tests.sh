#!/usr/bin/env bash
# The tests: prepares the environment once, then runs pytest, one file at a time on each of up to four cores.
# Without arguments the tests with vLLM follow, in an environment of their own (scripts/prepare_vllm.sh), where
# the platform has it.  Options are pytest's, e.g.
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

with_vllm() {
  local python
  python="$("$here/scripts/prepare_vllm.sh")"
  "$python" -m pytest --numprocesses auto --maxprocesses 2 --dist loadfile "$@"
}

if [[ "${1:-}" == tests_vllm* ]]; then with_vllm "$@"; exit; fi
python="$("$here/scripts/prepare_env.sh")"
vllm_too=""
if [ "$#" -eq 0 ] && [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] && [ "${CI:-}${ZEROSEARCH_VLLM:-}" != skip ]; then
  vllm_too=yes
  "$here/scripts/prepare_vllm.sh" >/dev/null 2>&1 &  # meanwhile; what goes wrong is told when it is needed
fi
failed=0
"$python" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@" || failed=$?
if [ -n "$vllm_too" ]; then
  wait || true
  with_vllm tests_vllm || failed=$?
fi
exit "$failed"
