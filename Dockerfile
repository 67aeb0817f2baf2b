# syntax=docker/dockerfile:1
# One image for every program: `ggen run PROGRAM`. Google's clients are in it, no compiler is.
FROM python:3.12.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/ggen
COPY requirements.lock requirements-gcp.lock ./
RUN /opt/ggen/bin/pip install --require-hashes -r requirements.lock \
 && /opt/ggen/bin/pip install --require-hashes -r requirements-gcp.lock
COPY pyproject.toml README.md beat_schedule.py ./
COPY ggen_governor ggen_governor
COPY governor governor
COPY ledger ledger
COPY ports ports
COPY config config
COPY adapters adapters
COPY tasks tasks
COPY ingress ingress
COPY bench bench
COPY cli cli
RUN /opt/ggen/bin/pip install --no-deps --no-build-isolation .

FROM python:3.12.11-slim-bookworm
RUN groupadd --gid 10001 ggen \
 && useradd --uid 10001 --gid ggen --no-create-home --home-dir /state ggen \
 && install -d -o ggen -g ggen -m 0700 /state /state/keys /state/secrets /state/run
COPY --from=build /opt/ggen /opt/ggen
ENV PATH=/opt/ggen/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_ARENA_MAX=2 \
    GGEN_STATE_DIR=/state
USER 10001:10001
WORKDIR /state
VOLUME /state
# Nothing is written but /state and /tmp: run it with a read-only root.
ENTRYPOINT ["ggen"]
CMD ["--help"]
