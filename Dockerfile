# adjudge on a CPU, in a slim image without compilers; nothing is fetched at run time that is not asked for.
#
#   docker build -t adjudge --build-arg TORCH_INDEX=ADDRESS .
#   docker run --rm -v adjudge-cache:/cache -v "$PWD":/work adjudge demo --budget smoke
#
# TORCH_INDEX is the package index of PyTorch's CPU builds (the selector on PyTorch's site shows it). Without it the
# default index is used, whose Linux build brings several GB of CUDA. EXTRAS installs more: --build-arg EXTRAS=trackers
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=""
ARG EXTRAS=""
WORKDIR /source
RUN python -m venv /opt/adjudge
COPY constraints.txt ./
# By itself, so that a change of ours does not fetch it again.
RUN /opt/adjudge/bin/pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/adjudge/bin/pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim
COPY --from=build /opt/adjudge /opt/adjudge
# Anyone may write there, so that `docker run --user` works too; a new volume takes over the mode of what it covers.
RUN useradd --create-home --uid 1000 judge && mkdir --mode 1777 /cache /work
ENV PATH="/opt/adjudge/bin:$PATH" \
    ADJUDGE_CACHE=/cache/adjudge \
    HF_HOME=/cache/huggingface \
    PYTHONUNBUFFERED=1
USER judge
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["adjudge"]
CMD ["--help"]
