# taskd in one image, for every role. TASKD_… variables say which, and all else: docs/configuration.md.
#
#   docker build -t taskd:0.1.0 .
#   docker run --rm --network host -e TASKD_AUTH=none -e TASKD_DATABASE_URL=postgresql://… taskd:0.1.0
#
# It listens where taskd does by default, on loopback: TASKD_AUTH=none serves nowhere else, and so wants a network that is
# shared, with the host or with another container. Where callers have to prove who they are, TASKD_HTTP=0.0.0.0:8080 and
# TASKD_GRPC=0.0.0.0:50051 make it reachable; the health check asks wherever TASKD_HTTP says.
#
# Not Alpine: protobuf has no wheel for its libc, and without one it is many times slower.
FROM python:3.13-slim AS build

RUN apt-get update && apt-get install -y --no-install-recommends binutils

WORKDIR /build
COPY requirements.lock ./
RUN pip install -q --no-compile --no-deps --require-hashes --target /app -r requirements.lock
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY taskd taskd
RUN pip install -q --no-compile --no-deps --target /app .
# What only a debugger or a compiler wants: about a third of all.
RUN find /app -type f -name '*.so*' -exec strip --strip-unneeded {} +
RUN find /app -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.h' \) -delete && rm -rf /app/bin
# Nobody can write there later, and a start that has to compile takes a second longer.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app


FROM python:3.13-slim

LABEL org.opencontainers.image.title="taskd" \
      org.opencontainers.image.description="A task server in one small process: REST, WebSocket and gRPC over one PostgreSQL" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"

RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin taskd
COPY --from=build /app /app
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1
# Python's own modules come uncompiled: those that taskd loads are compiled here.
RUN python -c 'import taskd.parts, taskd.gateway, taskd.rpc.server, taskd.cache.redis, taskd.cli.serve, taskd.cli.health'
ENV PYTHONDONTWRITEBYTECODE=1

USER 10001:10001
# Handlers of TASKD_HANDLERS are found here: COPY them, or mount them.
WORKDIR /srv
EXPOSE 8080 50051
STOPSIGNAL SIGTERM
# Whether it lives, not whether it is ready: it heals by itself when the database is back, and is not to be killed for it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "taskd", "health", "--live"]
ENTRYPOINT ["python", "-m", "taskd"]
CMD ["serve"]
