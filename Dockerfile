# The shared base image: functions built with `--build-arg BASE_IMAGE=<it>` share every layer but their own.
# It is the `base` stage of the template's Dockerfile, and a test keeps the two the same:
#   docker build -t faasbase -f Dockerfile template/python-fastapi
ARG PYTHON_VERSION=3.13
ARG DEBIAN_OS=slim-trixie
ARG PYTHON_IMAGE=docker.io/library/python:${PYTHON_VERSION}-${DEBIAN_OS}

FROM ${PYTHON_IMAGE} AS base
USER root
ENV PATH=/opt/function/bin:/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /home/app
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.base.name="${PYTHON_IMAGE}"
COPY base /opt/faasbase
# faasbase comes from this folder only: it stands in no index, so a package of that name in one is a stranger's.
RUN --mount=type=secret,id=pipconf,target=/etc/pip.conf --mount=type=secret,id=netrc,target=/tmp/.netrc \
    sh /opt/faasbase/image/install-base.sh
