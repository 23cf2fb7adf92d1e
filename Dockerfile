# One image for everything: a run's job, the Prefect server, a worker, the command line.
#   docker build -t pcam:dev --build-arg VERSION=0.1.0 --build-arg COMMIT=$(git rev-parse HEAD) .
#   docker run --rm --read-only pcam:dev pcam --help
ARG BASE=python:3.11-slim-bookworm

# What to install, in a stage of its own: a change of pyproject.toml that adds no dependency keeps the large layers.
FROM ${BASE} AS wanted
COPY pyproject.toml requirements.lock ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
e = p['optional-dependencies']; \
print('\n'.join(p['dependencies'] + e['pipeline'] + e['slides'] + e['timm'] + ['setuptools']))" > /rest.txt \
 && grep '^torch' /rest.txt > /torch.txt \
 && grep -iE '^(torch|triton|cuda-|nvidia-|numpy|pillow|sympy|mpmath|networkx|fsspec|filelock|jinja2|markupsafe|typing)' \
    requirements.lock > /torch.lock

FROM ${BASE}
# g++, with gcc and libc6-dev: torch.compile has Triton compile C at its start and writes C++ for the CPU.
RUN apt-get update \
 && apt-get install -y --no-install-recommends tini g++ \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --home-dir /opt/prefect --shell /usr/sbin/nologin pcam \
 && mkdir -p /opt/app /opt/prefect/tmp /var/cache/pcam \
 && chown -R pcam:pcam /opt/prefect /var/cache/pcam

# The locked dependencies before the code. Torch's stack, with CUDA from its wheels, is 5 GB and has a layer of its own,
# which stays as long as its own versions do.
WORKDIR /opt/app
COPY --from=wanted /torch.txt /torch.lock ./
RUN pip install --no-cache-dir -c torch.lock -r torch.txt
COPY --from=wanted /rest.txt ./
COPY requirements.lock ./
# In layers below 300 MB, which are pushed and pulled side by side.
RUN pip install --no-cache-dir -c requirements.lock scipy scikit-learn matplotlib
RUN pip install --no-cache-dir -c requirements.lock pandas pyarrow
RUN pip install --no-cache-dir -c requirements.lock onnx onnxscript onnxruntime
RUN pip install --no-cache-dir -c requirements.lock openslide-bin scikit-image shapely tifffile
RUN pip install --no-cache-dir -c requirements.lock -r rest.txt

COPY pyproject.toml README.md ./
COPY pcam_model pcam_model
COPY tasks tasks
COPY flows flows
COPY deployments deployments
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e . \
 && python -m compileall -q pcam_model tasks flows deployments

ARG VERSION=0.0.0
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="pcam" \
      org.opencontainers.image.description="From histopathology patches to a published, trusted cancer detector" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"

# Only the two volumes can be written, so the root file system may be read-only.
ENV HOME=/opt/prefect \
    TMPDIR=/opt/prefect/tmp \
    PREFECT_HOME=/opt/prefect \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    DO_NOT_TRACK=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PCAM_CACHE=/var/cache/pcam \
    PCAM_STORE=file:///var/cache/pcam/store \
    TORCH_HOME=/var/cache/pcam/torch \
    HF_HOME=/var/cache/pcam/huggingface \
    HF_HUB_DISABLE_TELEMETRY=1 \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/pcam/torchinductor \
    PYTORCH_ALLOC_CONF=expandable_segments:True \
    MPLCONFIGDIR=/opt/prefect/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME ["/opt/prefect", "/var/cache/pcam"]
USER pcam
ENTRYPOINT ["tini", "-g", "--"]
CMD ["pcam", "--help"]
