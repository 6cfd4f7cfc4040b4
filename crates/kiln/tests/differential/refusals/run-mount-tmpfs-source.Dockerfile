FROM scratch
RUN --mount=type=tmpfs,target=/c,source=x true
