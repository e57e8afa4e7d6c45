# An image with the plugin as install.sh installs it: /opt/cni-netkit, /opt/cni/bin/netkit.
#
#     docker build -t cni-netkit .
#     echo '{"cniVersion": "1.0.0"}' | docker run --rm -i -e CNI_COMMAND=VERSION cni-netkit
#
# Both stages must be the same distribution: the environment refers to the system's Python.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev python3-venv
COPY pyproject.toml hatch_build.py README.md LICENSE install.sh /src/
COPY cni_netkit /src/cni_netkit
RUN /src/install.sh

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt /opt
ENTRYPOINT ["/opt/cni/bin/netkit"]
