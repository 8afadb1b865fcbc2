# The shared base image: functions built with `--build-arg BASE_IMAGE=<it>` share every layer but their own code.
# It is the `base` stage of the template's Dockerfile, and a test keeps the two the same:
#   docker build -t faasbase -f Dockerfile template/python-fastapi
ARG PYTHON_VERSION=3.13
ARG DEBIAN_OS=slim-trixie
ARG PYTHON_IMAGE=docker.io/library/python:${PYTHON_VERSION}-${DEBIAN_OS}

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
COPY base /opt/faasbase
# faasbase comes from this folder only: it stands in no index, so a package of that name in one is a stranger's.
# The standard library is compiled too: official images ship it without bytecode, and a read-only root keeps it so.
RUN python3 -m venv /opt/venv \
 && pip install --require-hashes -r /opt/faasbase/requirements.txt \
 && pip wheel --no-build-isolation --no-deps --wheel-dir /opt/faasbase/wheel /opt/faasbase \
 && pip install --no-deps /opt/faasbase/wheel/*.whl \
 && echo "faasbase @ file://$(ls /opt/faasbase/wheel/*.whl)" > /opt/faasbase/pin.txt \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" /opt/venv/lib
