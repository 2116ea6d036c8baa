#!/usr/bin/env bash
# The main job: prepares the environment once, then runs the notebooks.  Options: ./run_all.sh --help
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
python="$("$here/scripts/prepare_env.sh")"
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1
exec "$python" -m zerosearch.cli "$@"
