# Training on the CPU reference.
# docker build -f docker/cpu.Dockerfile -t chipperf-cpu .
# docker run --rm --ipc=host -v "$PWD:/work" chipperf-cpu train mobilenetv2 --vendor cpu --preset demo --out runs/demo
FROM python:3.12-slim-bookworm

# Builds of torch for the CPU alone; a mirror of it can be named.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.4" "torchvision>=0.19"

COPY core /src/core
RUN pip install --no-cache-dir "/src/core[train,plot]"

# Threads that spin while they wait slow a shared machine down.
ENV OMP_WAIT_POLICY=passive
WORKDIR /work
ENTRYPOINT ["perf"]
CMD ["doctor"]
