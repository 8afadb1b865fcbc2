#!/bin/sh
# Install the base into /opt/venv, from hash-locked requirements and the folder that this script comes with.
set -eu
here=/opt/faasbase
sh "$here/image/harden.sh"
python3 -m venv --without-pip /opt/venv
# The image's own pip; none is shipped in the environments.
python=$(/opt/venv/bin/python3 -c 'import sys; print(sys._base_executable)')
pip() { "$python" -m pip --python /opt/venv/bin/python3 "$@"; }
pip install --no-input --no-compile --require-hashes -r "$here/requirements.txt"
pip wheel --no-build-isolation --no-deps --wheel-dir "$here/wheel" "$here"
pip install --no-compile --no-deps "$here"/wheel/*.whl
pip uninstall -y flit_core
# The hash is part of the address: it serves functions that lock hashes of their own, and asks it of no other.
wheel=$(ls "$here"/wheel/*.whl)
echo "faasbase @ file://$wheel#sha256=$(sha256sum "$wheel" | cut -d ' ' -f 1)" > "$here/pin.txt"
# A checkout may be its owner's alone; tests run these scripts as another user.
chmod -R u=rwX,go=rX "$here"
# Official images ship the standard library without bytecode, and a read-only root would keep it so.
stdlib=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
  -x '/(test|idlelib|tkinter|turtledemo|ensurepip|lib2to3|site-packages|dist-packages)/' "$stdlib"
python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/venv/lib
