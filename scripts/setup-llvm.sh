#!/usr/bin/env bash
# Lets the features `cpu`, `cuda` and `rocm` build without a download from GitHub.
#
# CubeCL 0.11 links LLVM 23.1 statically. Its build script downloads a bundle of 200 MB, unless it finds one
# unpacked in ~/.local/share/tracel. PyPI has the same libraries (mlc-llvm-static and its extra targets, for
# x86-64 Linux); this puts them there. It takes 500 MB of disk.
set -euo pipefail

packages=23.1.1.post0
bundle="${XDG_DATA_HOME:-$HOME/.local/share}/tracel/tracel-llvm-23.1.0-4"
if [ -e "$bundle/.tracel-llvm-installed" ]; then
    echo "$bundle is there already"
    exit
fi

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
"$scratch/venv/bin/pip" install --quiet --no-deps \
    "mlc-llvm-static==$packages" "mlc-llvm-static-extra-targets==$packages"
package=$("$scratch/venv/bin/python" -c 'import mlc_llvm_static as m; print(m.__path__[0])')

mkdir -p "$bundle"
cp -r "$package/static/." "$bundle/"
"$bundle/bin/llvm-config" --version
# The mark that CubeCL's build script looks for, last.
touch "$bundle/.tracel-llvm-installed"
echo "LLVM is in $bundle"
