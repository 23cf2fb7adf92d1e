#!/bin/sh
# Make the virtual environment VENV with PYTHON: everything in the versions of requirements.lock.
# With TORCH_INDEX, torch and torchvision come from there: in the locked version where the index has it (with any local
# version, as in 2.15.0+cpu), else in the newest that the project can use; what else they need is chosen around them.
set -eu
cd "$(dirname "$0")/.."

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "$PYTHON is $("$PYTHON" --version 2>&1 || true), pcam needs Python 3.11 or newer:" \
         "install one and say where, as in make PYTHON=python3.11 $*" >&2
    exit 1
}
[ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c '' 2>/dev/null || {
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV" || { rm -rf "$VENV"; exit 1; }
}
pip="$VENV/bin/python -m pip --quiet --disable-pip-version-check"
index=${TORCH_INDEX:-$(cat "$VENV/.torch-index" 2>/dev/null || true)}
constraints=requirements.lock

if [ -n "$index" ]; then
    echo "Installing torch and torchvision from $index ..."
    $pip install --no-deps --index-url "$index" -c requirements.lock torch torchvision 2>/dev/null || {
        echo "It does not have the versions of requirements.lock: taking the newest that fit"
        $pip install --no-deps --index-url "$index" 'torch>=2.11,<3' torchvision
    }
    constraints=$VENV/constraints.txt
    grep -vE '^(torch|torchvision|triton|cuda-|nvidia-)' requirements.lock > "$constraints"
    $pip freeze | grep -E '^(torch|torchvision)==' >> "$constraints"
fi
echo "Installing into $VENV (minutes the first time) ..."
$pip install -c "$constraints" -e '.[pipeline,dev]'
[ -z "$index" ] || printf '%s\n' "$index" > "$VENV/.torch-index"
