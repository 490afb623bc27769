# Training on a vendor's card, in the vendor's image, whose torch stays as it is.
# docker build -f docker/vendor.Dockerfile --build-arg BASE=IMAGE --build-arg PLUGIN=metax -t chipperf-metax .
# docker run --rm --ipc=host DEVICE_OPTIONS_OF_THE_VENDOR -v "$PWD:/work" chipperf-metax train resnet50 --out runs/resnet50
ARG BASE
# hadolint ignore=DL3006
FROM ${BASE}

ARG PLUGIN
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY core /src/core
COPY plugins /src/plugins
# What is installed now, torch above all, is a constraint: pip fails rather than replaces it.
RUN python3 -m pip list --format=freeze | grep -E "^torch(vision)?==" > /tmp/torch.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/torch.txt \
        "/src/core[train-notorch]" "/src/plugins/${PLUGIN}" \
    && rm /tmp/torch.txt

WORKDIR /work
ENTRYPOINT ["perf"]
CMD ["doctor", "--compute"]
