# The gateway as a container image: docker build -t tracegate .
#
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges -p 8080:8080 \
#       -v "$PWD/routes.toml:/etc/tracegate/routes.toml:ro" tracegate
#
# Nothing is written but to standard output, and to files that routes.toml names.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
# The dependencies alone first: this layer is built again only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
    && cargo build --locked --profile dist \
    && rm -r src
COPY routes.toml ./
COPY src ./src
# Copied files keep their dates, and cargo goes by dates.
RUN touch src/main.rs src/lib.rs && cargo build --locked --profile dist

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
