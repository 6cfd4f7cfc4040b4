FROM scratch
RUN --mount=type=bind,target=/c,ro=maybe true
