# greenq's commands, for running workers and for deriving an application's image from: docs/container.md
#
#     docker build --tag greenq .
#
# Plain syntax, so that BuildKit and buildah both build it. A digest is pinned by
# --build-arg BASE=docker.io/library/python:3.13-slim-trixie@sha256:...
ARG BASE=docker.io/library/python:3.13-slim-trixie


# All wheels, made or fetched once, and a virtual environment of them.
FROM ${BASE} AS build
WORKDIR /build
ENV PATH=/opt/greenq/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1

# What greenq needs comes before its sources, so that these layers last until the lock file changes. setuptools builds
# greenq and stays here. Of each package there is the version that was locked and no other.
COPY requirements.lock ./
# hadolint ignore=DL3013
RUN python -m venv /opt/greenq \
    && pip wheel --require-hashes --no-deps --only-binary :all: --wheel-dir wheels --requirement requirements.lock \
    && pip install --no-index --find-links wheels --target tools setuptools

COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY greenq greenq
ARG EXTRAS=redis,rabbitmq,prometheus,memcached
# hadolint ignore=DL3013
RUN PYTHONPATH=tools pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheels . \
    && pip install --no-index --find-links wheels "greenq[${EXTRAS}]"


FROM ${BASE}

# A number that no user of the host has, and by number below, so that Kubernetes can see that it is not root.
RUN groupadd --gid 10001 greenq \
    && useradd --uid 10001 --gid greenq --no-create-home --home-dir /app --shell /usr/sbin/nologin greenq \
    && install --directory /app \
    && install --directory --owner greenq --group greenq /data

COPY --from=build /opt/greenq /opt/greenq
ENV PATH=/opt/greenq/bin:$PATH

# The base's library is not compiled, and who runs here may not write: each process would compile what it imports.
RUN python -m compileall -q -x '/(site-packages|ensurepip|idlelib|pydoc_data|test|tests|tkinter|turtledemo)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && greenq --version

# The application goes to /app, where nobody may write; /data is for files, such as the SQLite broker's.
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s --retries=3 CMD ["greenq", "health"]

ARG REVISION=
LABEL org.opencontainers.image.title="greenq" \
      org.opencontainers.image.description="Background jobs on greenlets: thousands at once in one process, none lost" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"

# No entry point: `greenq-worker`, or whatever else is run, is process 1 itself.
CMD ["greenq-worker"]
