# The gateway as a container image: docker build -t tracegate .
#
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges -p 8080:8080 \
#       -v "$PWD/routes.toml:/etc/tracegate/routes.toml:ro" tracegate
#
# Nothing is written but to standard output, and to files that routes.toml names.

FROM rust:1.95-slim-bookworm AS build
# What scripts/dist.sh needs beside the toolchain.
RUN apt-get update && apt-get install -y --no-install-recommends curl llvm-22 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# The dependencies' sources are a layer of their own, fetched again only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && touch src/lib.rs src/main.rs && cargo fetch --locked && rm -r src
COPY routes.toml ./
COPY certs/gateway.pem certs/gateway-key.pem certs/
COPY scripts/dist.sh scripts/
COPY src ./src
RUN scripts/dist.sh

# The C library and nothing else: no shell, no package manager. Runs as user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="tracegate" org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /build/target/dist/tracegate /usr/local/bin/tracegate
# Mount your own over it.
COPY routes.toml /etc/tracegate/routes.toml
WORKDIR /etc/tracegate
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/local/bin/tracegate", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tracegate"]
CMD ["run"]
