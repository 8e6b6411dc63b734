# The trainer, torch with CUDA included: for x86-64, 6.4 GB. Build from the repository root:
#   docker build --file deploy/trainer.Dockerfile --tag mien-trainer .
#   docker run --gpus all --shm-size 2g --volume "$PWD/data:/data:ro" --volume "$PWD/runs:/runs" \
#     mien-trainer fit --preset smoke --data /data --out /runs/first
# /runs must be writable for user 10001.
# BASE is a tag; an operator names its digest instead: docs/integrity.md.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS build
WORKDIR /src
RUN python -m venv /opt/mien
COPY pyproject.toml README.md LICENSE ./
COPY mien mien
COPY edge_encoder edge_encoder
COPY cloud_recognizer cloud_recognizer
COPY trainer trainer
COPY deploy/requirements deploy/requirements
RUN sh deploy/requirements/install trainer /opt/mien
# Here torch must be there, and CompressAI with it.
RUN ["/opt/mien/bin/python", "-c", "import compressai, torch, trainer.cli"]

FROM ${BASE}
RUN useradd --uid 10001 --create-home --home-dir /var/lib/mien --shell /usr/sbin/nologin mien \
    && install --directory --owner 10001 /runs
COPY --from=build /opt/mien /opt/mien
ENV PATH=/opt/mien/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib
USER 10001
WORKDIR /runs
# It serves nobody, so there is no health to check.
HEALTHCHECK NONE
ENTRYPOINT ["mien-train"]
CMD ["--help"]
