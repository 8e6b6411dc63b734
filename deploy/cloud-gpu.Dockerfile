# The recognizer on CUDA, for x86-64. Build from the repository root:
#   docker build --file deploy/cloud-gpu.Dockerfile --tag mien-cloud-gpu .
#   docker run --gpus all mien-cloud-gpu serve --bundles /bundles --provider cuda
# By itself it listens for others and wants certificates: docs/deploy.md.
# CUDA and cuDNN come as wheels, locked by hash like all else, and those that this ONNX Runtime was
# built for; so the base is that of the other images. The driver is the host's, as ever: 580 or newer.
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
    sh deploy/requirements/install cloud-gpu /opt/mien \
    && /opt/mien/bin/python /slim.py /opt/mien --without edge_encoder trainer \
        --loads cloud_recognizer.cli cloud_recognizer.server onnxruntime nats aiohttp numba mien.spans cloud_recognizer.archive.files
# A service never needs torch: an image in which it can be imported is built wrongly.
RUN ["/opt/mien/bin/python", "-c", \
     "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"]

FROM ${BASE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin mien
COPY --from=build /opt/mien /opt/mien
COPY deploy/check_health.py /opt/mien/check_health.py
COPY bundles /bundles
# numba keeps what it has compiled: mount a volume at /var/cache/numba, or every start compiles anew.
ENV PATH=/opt/mien/bin:$PATH \
    NUMBA_CACHE_DIR=/var/cache/numba \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
RUN install --directory --owner 10001 /var/cache/numba
USER 10001
EXPOSE 50051 9464
HEALTHCHECK --interval=10s --timeout=10s --start-period=120s \
    CMD ["python", "/opt/mien/check_health.py", "http://127.0.0.1:9464/readyz"]
ENTRYPOINT ["mien-cloud"]
# It refuses to start without a GPU that works, rather than to be slow in silence.
CMD ["serve", "--bundles", "/bundles", "--host", "0.0.0.0", "--metrics_host", "0.0.0.0", "--provider", "cuda"]
