# The recognizer on the CPU. Build from the repository root:
#   docker build --file deploy/cloud.Dockerfile --tag mien-cloud .
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
COPY deploy/slim.py /slim.py
RUN --mount=type=cache,target=/root/.cache/pip \
    sh deploy/requirements/install cloud /opt/mien \
    && /opt/mien/bin/python /slim.py /opt/mien --without edge_encoder trainer \
        --loads cloud_recognizer.cli cloud_recognizer.server onnxruntime nats aiohttp mien.spans cloud_recognizer.archive.files
# A service never needs torch: an image in which it can be imported is built wrongly.
RUN ["/opt/mien/bin/python", "-c", \
     "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"]

FROM ${BASE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin mien
COPY --from=build /opt/mien /opt/mien
COPY deploy/check_health.py /opt/mien/check_health.py
COPY bundles /bundles
ENV PATH=/opt/mien/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 50051 9464
# SERVING only once the model is warm, and no longer while draining.
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s \
    CMD ["python", "/opt/mien/check_health.py", "http://127.0.0.1:9464/readyz"]
ENTRYPOINT ["mien-cloud"]
CMD ["serve", "--bundles", "/bundles", "--host", "0.0.0.0", "--metrics_host", "0.0.0.0"]
