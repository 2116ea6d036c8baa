#!/usr/bin/env bash
# Writes notebooks/NN_name.ipynb from the paired notebooks/NN_name.py, without outputs and with cell ids that
# stay the same from one writing to the next.  Edit the .py file (or pair them in Jupyter), then call this.
#
#   scripts/sync_notebooks.sh             all notebooks, stages (00 to 05) and appendices (A1)
#   scripts/sync_notebooks.sh NAME.py...  these
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
python="$("$root/scripts/prepare_env.sh")"
if [ "$#" -eq 0 ]; then set -- "$root"/notebooks/[0-9A]*.py; fi
for script in "$@"; do
  notebook="${script%.py}.ipynb"
  "$python" -m jupytext --quiet --to ipynb --output "$notebook" "$script"
  "$python" -m nbstripout "$notebook"
done
