#!/usr/bin/env bash
# Lets the features `cpu`, `cuda` and `rocm` build without a download from GitHub.
#
# CubeCL 0.11 links LLVM 23.1 statically. Its build script downloads a bundle of 200 MB, unless it finds one
# unpacked in ~/.local/share/tracel. PyPI has the same libraries (mlc-llvm-static and its extra targets, for
# x86-64 Linux); this puts them there. It takes 500 MB of disk.
set -euo pipefail

bundle="${XDG_DATA_HOME:-$HOME/.local/share}/tracel/tracel-llvm-23.1.0-4"
if [ -e "$bundle/.tracel-llvm-installed" ]; then
    echo "$bundle is there already"
    exit
fi

# The wheels themselves, by their hashes: what PyPI serves under these names later is not installed.
wheels='
mlc-llvm-static==23.1.1.post0 --hash=sha256:dcfec888abfaa418be77d41af585805f31463584cf9c90582992c00f392c1ac5
mlc-llvm-static-extra-targets==23.1.1.post0 --hash=sha256:c36e834d9a4e9cf9759f27fece65711ece7a2fc2b5a96dbb15d66f5e9e787929
'

# What LLVM and CubeCL's C++ are linked with.
missing=()
command -v g++ >/dev/null || missing+=(g++)
for library in libzstd.so libz.so; do
    [ -e "/usr/lib/x86_64-linux-gnu/$library" ] || missing+=("$([ $library = libz.so ] && echo zlib1g-dev || echo libzstd-dev)")
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ]; then
        apt-get update -qq
        apt-get install -y -qq "${missing[@]}"
    else
        echo "install these first: ${missing[*]}" >&2
        exit 1
    fi
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
# A wheel runs nothing when it is installed, and none of its Python is run here.
"$scratch/venv/bin/pip" install --quiet --no-deps --only-binary=:all: --require-hashes -r <(echo "$wheels")
packages=("$scratch"/venv/lib/python*/site-packages/mlc_llvm_static)

mkdir -p "$bundle"
cp -r "${packages[0]}/static/." "$bundle/"
"$bundle/bin/llvm-config" --version
# The mark that CubeCL's build script looks for, last.
touch "$bundle/.tracel-llvm-installed"
echo "LLVM is in $bundle"
