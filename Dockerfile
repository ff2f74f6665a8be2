# The service as one wheel in one environment, run by a user who owns nothing but its spool.
FROM python:3.12.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY sync sync
COPY sql sql
COPY migrations migrations
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.12.11-slim-bookworm
RUN useradd --system --create-home --home-dir /var/lib/standpipe standpipe
COPY --from=build /dist /dist
RUN python -m venv /opt/standpipe \
 && /opt/standpipe/bin/pip install --no-cache-dir /dist/*.whl \
 && ln -s /opt/standpipe/bin/standpipe /usr/local/bin/standpipe \
 && rm -r /dist
ENV PYTHONUNBUFFERED=1
USER standpipe
WORKDIR /var/lib/standpipe
ENTRYPOINT ["standpipe"]
CMD ["run"]
