#!/usr/bin/env bash
# Prepares the Python environment once and prints the path of its python; everything else goes to stderr.
#
#   python="$(scripts/prepare_env.sh)"
#
# Uses the active conda environment if it is the one of environment.yml, else makes .venv in the project.
# Installs again only when pyproject.toml, constraints.txt, the project's place or the extras changed.
#
#   ZEROSEARCH_PYTHON    a Python of 3.11 or later to make .venv with (default: the first one found)
#   ZEROSEARCH_EXTRAS    more extras of pyproject.toml, e.g. gpu
#   ZEROSEARCH_PIP_ARGS  more options for pip, e.g. an index with CPU builds: on Linux the default torch
#                        wheel brings CUDA libraries (about 3 GB to download in all; 0.65 GB with a CPU build)
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
extras="dev${ZEROSEARCH_EXTRAS:+,$ZEROSEARCH_EXTRAS}"
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 3; }
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  local candidate
  set -- python3.11 python3.12 python3.13 python3 python python3.14
  if [ -n "${ZEROSEARCH_PYTHON:-}" ]; then set -- "$ZEROSEARCH_PYTHON"; fi  # no other one then
  for candidate in "$@"; do
    if is_new_enough "$candidate"; then command -v "$candidate"; return; fi
  done
  fail "Python: expected 3.11 or later, found none of: $*." \
       "Install one (macOS: brew install python@3.12; Ubuntu: sudo apt install python3.12 python3.12-venv)" \
       "or name one: ZEROSEARCH_PYTHON=/path/to/python3.12 ./run_all.sh"
}

make_venv() {
  local python
  python="$(find_python)"
  say "Making .venv with $("$python" --version 2>&1) ($python)"
  rm -rf "$root/.venv"
  "$python" -m venv "$root/.venv" >&2 || {
    rm -rf "$root/.venv"
    fail "Python: expected '$python -m venv' to work; on Debian and Ubuntu: sudo apt install python3-venv"
  }
}

fingerprint() {  # of everything that an installation depends on
  "$1" - "$root" "$extras" <<'PYTHON'
import hashlib, pathlib, sys
root, extras = sys.argv[1:]
files = [pathlib.Path(root, name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
print(hashlib.sha256(repr((files, root, extras, sys.version_info[:2])).encode()).hexdigest())
PYTHON
}

# One installation at a time.  The lock holds its owner's process id; a lock whose owner is gone is void.
lock="$root/.env.lock"
take_lock() {
  local owner
  until mkdir "$lock" 2>/dev/null; do
    owner="$(cat "$lock/pid" 2>/dev/null || true)"
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then rm -rf "$lock"; continue; fi
    if [ -z "$owner" ]; then  # just made, or left by a process killed at this very point
      sleep 2
      [ -e "$lock/pid" ] || rm -rf "$lock"
      continue
    fi
    say "Waiting for another installation (process $owner)"
    sleep 5
  done
  echo $$ >"$lock/pid"
  trap 'rm -rf "$lock"' EXIT
}

install() {  # environment folder, its python
  local home="$1" python="$2" log="$1/zerosearch-install.log" force=""
  # left behind by an installation that was killed: packages may be half there
  if [ -e "$home/zerosearch-installing" ]; then force="--force-reinstall"; fi
  : >"$home/zerosearch-installing"
  say "Installing the packages, once (2 to 20 minutes with the network; what it does: $log)"
  # the build tool first, so that the package itself needs no separate build environment
  # shellcheck disable=SC2086
  if ! { "$python" -m pip install --no-input -c "$root/constraints.txt" ${ZEROSEARCH_PIP_ARGS:-} setuptools &&
         "$python" -m pip install --no-input -c "$root/constraints.txt" ${ZEROSEARCH_PIP_ARGS:-} $force \
           --no-build-isolation --editable "$root[$extras]"; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    fail "" "The installation did not finish (see above; all of it: $log)." \
         "It needs the network or a local package index, and 2 to 8 GB of disk." \
         "Then run the same command again; it goes on with what is already downloaded."
  fi
  fingerprint "$python" >"$home/zerosearch-stamp.part"
  mv -f "$home/zerosearch-stamp.part" "$home/zerosearch-stamp"
  rm -f "$home/zerosearch-installing"
}

is_ready() {  # environment folder, its python
  [ -e "$1/zerosearch-stamp" ] && [ ! -e "$1/zerosearch-installing" ] &&
    [ "$(cat "$1/zerosearch-stamp")" = "$(fingerprint "$2" 2>/dev/null)" ]
}

conda_name="$(sed -n 's/^name: *//p' "$root/environment.yml")"
if [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" = "$conda_name" ]; then
  home="$CONDA_PREFIX"
else
  home="$root/.venv"
fi
python="$home/bin/python"

if ! is_ready "$home" "$python"; then
  take_lock
  if [ "$home" = "$root/.venv" ]; then
    if [ -e "$home/zerosearch-installing" ] || ! is_new_enough "$python"; then make_venv; fi
  elif ! is_new_enough "$python"; then
    fail "Python: expected 3.11 or later in the conda environment $conda_name, found $("$python" --version 2>&1)." \
         "Mend it: conda env update -f environment.yml"
  fi
  if ! is_ready "$home" "$python"; then install "$home" "$python"; fi
fi
printf '%s\n' "$python"
