# The agent as an image, and the launcher for the host, which so needs no Python:
#
#     docker build -t cni-netkit .
#     docker run --rm -v /opt/cni/bin:/host/opt/cni/bin cni-netkit install
#     docker run -d --privileged --network=host -v /run/cni-netkit:/run/cni-netkit \
#         -v /var/lib/cni:/var/lib/cni -v /run/netns:/run/netns:rslave cni-netkit
#
# docs/installing.md says what each of these is for. Both stages must be the same distribution, since
# the environment refers to the system's Python: Debian 12 or later. For a build that can be repeated
# give the base by its digest: --build-arg BASE_IMAGE=debian@sha256:... For traces: --build-arg WITH=otel.
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates clang gcc libc6-dev musl-tools python3-venv
WORKDIR /src
# First what seldom changes: versions and hashes are those of .ci/lock-requirements.
COPY requirements requirements
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.lock \
    && python3 -m venv --without-pip /opt/cni-netkit \
    && /build/bin/pip --python /opt/cni-netkit/bin/python install --no-cache-dir \
        --require-hashes -r requirements/run.lock -r requirements/node.lock
ARG WITH=
RUN [ -z "$WITH" ] || /build/bin/pip --no-cache-dir --python=/opt/cni-netkit/bin/python install \
        --require-hashes -r "requirements/$WITH.lock"
COPY pyproject.toml hatch_build.py LICENSE install.sh *.md ./
COPY docs docs
COPY examples examples
COPY conf conf
COPY cni_netkit cni_netkit
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /build/bin/pip --python /opt/cni-netkit/bin/python install --no-cache-dir \
        --no-deps --no-index /wheel/*.whl \
    && /opt/cni-netkit/bin/cni-netkit launcher

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="cni-netkit" \
      org.opencontainers.image.description="CNI plugin that connects containers with netkit devices: the agent" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libbpf1 python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/*
COPY --from=build /opt/cni-netkit /opt/cni-netkit
# What docker exec and kubectl exec are given is found as on a node.
ENV PATH=/opt/cni-netkit/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Root: network devices, and entering namespaces, take capabilities that a user has not.
USER 0
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/cni-netkit/bin/cni-netkit"]
CMD ["agent"]
