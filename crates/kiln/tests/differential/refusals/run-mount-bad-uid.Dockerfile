FROM scratch
RUN --mount=type=cache,target=/c,uid=-1 true
