# syntax=docker/dockerfile:1
# Stage 1 has the build tools; stage 2 is what runs.
FROM python:3.12-slim AS build
WORKDIR /src
COPY deploy/requirements.txt deploy/requirements.txt
# the file is the whole closure, so nothing else is resolved or fetched
RUN python -m venv --copies /opt/signalserve \
 && /opt/signalserve/bin/python -m pip install --no-cache-dir --require-hashes --no-deps -r deploy/requirements.txt
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps -w /dist . \
 && /opt/signalserve/bin/python -m pip install --no-cache-dir --no-deps /dist/*.whl \
 && /opt/signalserve/bin/python -m pip uninstall -y pip setuptools

FROM python:3.12-slim
# xgboost needs OpenMP; pip goes, so that nothing in the image can install
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && python -m pip uninstall -y pip \
 && useradd --uid 10001 --create-home --home-dir /srv/signalserve signalserve
COPY --from=build /opt/signalserve /opt/signalserve
WORKDIR /srv/signalserve
COPY --chown=signalserve:signalserve config/system.yml config/system.yml
RUN mkdir -p outputs secrets && chown -R signalserve:signalserve outputs secrets
USER signalserve
ENV PATH=/opt/signalserve/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SIGNALSERVE__SERVER__HOST=0.0.0.0 \
    SIGNALSERVE__SERVER__HEALTH_PORT=50052 \
    SIGNALSERVE__LAB__HOST=0.0.0.0 \
    SIGNALSERVE__SECURITY__TLS_CERT=secrets/tls.crt \
    SIGNALSERVE__SECURITY__TLS_KEY=secrets/tls.key \
    SIGNALSERVE__SECURITY__TOKEN_FILE=secrets/tokens.json \
    SIGNALSERVE__LOGGING__FORMAT=json
# others reach a container, so it starts with these three files in secrets/ and not without: docs/security.md
RUN signalserve registry init
VOLUME /srv/signalserve/outputs
EXPOSE 50051 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["signalserve", "health", "--service", "liveness", "--target", "127.0.0.1:50052"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["signalserve"]
CMD ["serve"]
