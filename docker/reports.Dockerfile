# Reading: reports, comparisons, web pages and checks of documents and records. Without torch, and without a card.
# docker build -f docker/reports.Dockerfile -t chipperf-reports .
# docker run --rm -v "$PWD:/work" chipperf-reports report runs --lang zh --out README.md
FROM python:3.12-slim-bookworm

# Labels of pictures in Chinese need a Chinese font.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends fonts-wqy-zenhei=0.9.45-* \
    && rm -rf /var/lib/apt/lists/*

COPY core /src/core
COPY plugins /src/plugins
# The plugins bring the templates of their vendors.
RUN pip install --no-cache-dir "/src/core[plot]" /src/plugins/kunlunxin /src/plugins/metax /src/plugins/nvidia

WORKDIR /work
ENTRYPOINT ["perf"]
CMD ["--help"]
