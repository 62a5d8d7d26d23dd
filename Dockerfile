# The images of the edge and of the two backends: `docker build --target edge|learning|collab .`
# BUILDER brings Rust, BASE is what runs; both can be named otherwise where no registry is at hand.
ARG BUILDER=rust:1.95-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILDER} AS build
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends cmake ffmpeg gcc libc6-dev make pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN course/make-video.sh
RUN cargo build --release --locked --workspace --bins

FROM ${BASE} AS base
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/eduham --create-home eduham
WORKDIR /var/lib/eduham
USER eduham

FROM base AS learning
COPY --from=build /build/target/release/eduham-learning /usr/local/bin/
COPY --from=build /build/course /usr/share/eduham/course
ENTRYPOINT ["eduham-learning"]
CMD ["serve"]

FROM base AS collab
COPY --from=build /build/target/release/eduham-collab /usr/local/bin/
ENTRYPOINT ["eduham-collab"]
CMD ["serve"]

# Last, so that it is what a plain `docker build .` makes.
FROM base AS edge
COPY --from=build /build/target/release/eduham-edge /usr/local/bin/
COPY config/edge.yaml /etc/eduham/edge.yaml
HEALTHCHECK --interval=5s --timeout=2s --start-period=5s CMD ["eduham-edge", "healthcheck"]
ENTRYPOINT ["eduham-edge"]
CMD ["run", "-c", "/etc/eduham/edge.yaml"]
