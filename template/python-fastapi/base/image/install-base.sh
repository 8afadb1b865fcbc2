#!/bin/sh
# Install the base into /opt/venv, from hash-locked requirements and the folder that this script comes with.
set -eu
here=/opt/faasbase
sh "$here/image/harden.sh"
python3 -m venv --without-pip /opt/venv
# The image's own pip; none is shipped in the environments.
PATH=${PATH#/opt/function/bin:/opt/venv/bin:}
pip() { python3 -m pip --python /opt/venv/bin/python3 "$@"; }
pip install --no-input --no-compile --require-hashes -r "$here/requirements.txt"
pip wheel --no-build-isolation --no-deps --wheel-dir "$here/wheel" "$here"
pip install --no-compile --no-deps "$here"/wheel/*.whl
pip uninstall -y flit_core
# The hash is part of the address: it serves functions that lock hashes of their own, and asks it of no other.
wheel=$(ls "$here"/wheel/*.whl)
echo "faasbase @ file://$wheel#sha256=$(sha256sum "$wheel" | cut -d ' ' -f 1)" > "$here/pin.txt"
# Official images ship the standard library without bytecode, and a read-only root would keep it so.
stdlib=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
  -x '/(test|idlelib|tkinter|turtledemo|ensurepip|lib2to3|site-packages|dist-packages)/' "$stdlib"
python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/venv/lib
