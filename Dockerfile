# The service as an image: no root, no build tools, nothing written outside /state and /tmp.
#
#   docker build --target cpu  -t llm-auction:cpu .         the default; the model goes to the volume
#   docker build --target cpu-with-model -t llm-auction:cpu-with-model .      the model in the image
#   docker build --target cuda -t llm-auction:cuda .        vLLM for NVIDIA GPUs
#
# How to run it is in deploy/README.md. A registry mirror or proxy for pip goes in as a secret that
# no layer keeps: --secret id=pip.conf,src=pip.conf

ARG BASE=docker.io/library/debian:12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu


FROM ${BASE} AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# vLLM's kernels need libnuma and libstdc++; with tcmalloc preloaded it generates faster.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates libnuma1 libstdc++6 libtcmalloc-minimal4 python3.11 tzdata \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /state \
        --shell /usr/sbin/nologin app \
    && install --directory --owner app --group app --mode 0750 /state
ENV HOME=/state \
    LLM_AUCTION_STATE_DIR=/state \
    LLM_AUCTION_HTTP__HOST=0.0.0.0 \
    LLM_AUCTION_AUTH__KEYS_FILE=/run/secrets/api_keys
WORKDIR /app
VOLUME /state
EXPOSE 8000
# The first start makes the model servable and loads it: a minute or two.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 CMD ["python", "-c", \
    "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["python", "-m", "service.cli"]
CMD ["serve"]


FROM base AS installer
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.11-venv \
    && python3.11 -m venv /opt/venv


FROM installer AS cpu-packages
ARG TORCH_INDEX
COPY requirements/cpu.lock /requirements.lock
# As in the Makefile: the CPU build of torch is on an index of its own, unless pip already knows a
# place that has it. Bytecode is compiled here, as nothing can be written later; some packages carry
# templates and files for other Pythons, which do not compile.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    torch=$(grep '^torch==' /requirements.lock) \
    && { pip install --no-cache-dir --no-compile --no-deps "$torch" \
        || pip install --no-cache-dir --no-compile --no-deps --index-url "$TORCH_INDEX" "$torch"; } \
    && pip install --no-cache-dir --no-compile --no-deps -r /requirements.lock \
    && pip uninstall --yes pip \
    && { python -m compileall -q -j 0 /opt/venv/lib || true; }


FROM installer AS cuda-packages
COPY requirements/gpu.lock /requirements.lock
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    pip install --no-cache-dir --no-compile --no-deps -r /requirements.lock \
    && pip uninstall --yes pip \
    && { python -m compileall -q -j 0 /opt/venv/lib || true; }


FROM scratch AS app
COPY LICENSE /
COPY models /models
COPY service /service


# Triton compiles its kernels' launchers with a C compiler when they first run: the one build tool
# that serving on a GPU needs. FlashInfer's sampler would want nvcc and g++ as well: without them
# models/engine/environment.py has vLLM take its other one. Packages come before the code, which
# changes more often.
FROM base AS cuda
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libpython3.11-dev \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-packages /opt/venv /opt/venv
COPY --from=app / /app
USER 10001:10001


FROM base AS cpu-with-model
COPY --from=cpu-packages /opt/venv /opt/venv
COPY --from=app /models /app/models
RUN python -c "from pathlib import Path; from models.provision import DEFAULT_MODEL, provision; \
provision(DEFAULT_MODEL, Path('/opt/models'), print)"
ENV LLM_AUCTION_ENGINE__MODEL=/opt/models/SmolLM2-135M-Instruct-auction
COPY --from=app / /app
USER 10001:10001


# Last, so that a build that names no target makes it.
FROM base AS cpu
COPY --from=cpu-packages /opt/venv /opt/venv
COPY --from=app / /app
USER 10001:10001
