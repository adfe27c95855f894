# One of the three images: docker build --build-arg IMAGE=minimal-predictor --tag TAG .
# Needs BuildKit. Each starts as any non-root user, on a read-only root.
ARG IMAGE=minimal-predictor


# Not slim: KServe wants a psutil that has no wheel for arm64, so a compiler is needed there.
FROM python:3.11.14-bookworm AS build

ENV PIP_CACHE_DIR=/.cache/pip \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    UV_CACHE_DIR=/.cache/uv \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
RUN --mount=type=cache,target=/.cache/pip pip install uv==0.13.9

# The locked tree by hash, before the source, so that a change of the source keeps this layer.
ARG IMAGE
COPY ${IMAGE}/requirements.lock /build/
RUN --mount=type=cache,target=/.cache/uv uv venv /venv \
    && uv pip install --python /venv --require-hashes --compile-bytecode \
        --requirements /build/requirements.lock

# Readable whatever the umask of the clone.
COPY --chmod=755 ${IMAGE}/src /app
RUN /venv/bin/python -m compileall -q /app


FROM python:3.11.14-slim-bookworm AS base

COPY --from=build /venv /venv
COPY --from=build /app /app

# Bytecode is compiled above, and the log goes to stderr.
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1


FROM base AS minimal-predictor
LABEL org.opencontainers.image.description="A KServe predictor that multiplies by FACTOR"
EXPOSE 8080 8081
ENTRYPOINT ["python", "-m", "minimal_predictor"]


FROM base AS minimal-transformer
LABEL org.opencontainers.image.description="A KServe transformer that records each call in Postgres"
EXPOSE 8080 8081
# Writable for the user below and for any user of group 0, so that a run without a volume can spool.
ENV SPOOL_DIR=/var/spool/records
RUN install -d -o 65532 -g 0 -m 0770 /var/spool/records
ENTRYPOINT ["python", "-m", "minimal_transformer"]


FROM base AS shadow-report
LABEL org.opencontainers.image.description="Says whether the shadow may replace the primary; replays; keeps the tables"
ENTRYPOINT ["python", "-m", "shadow_report"]


# hadolint ignore=DL3006
FROM ${IMAGE}

ARG IMAGE
ARG VERSION=0.1.0
ARG SOURCE=
ARG REVISION=
LABEL org.opencontainers.image.title="${IMAGE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}"

# A replay keeps its state in the working folder; mount something writable there.
WORKDIR /tmp
USER 65532:65532
