FROM scratch AS x
FROM scratch
RUN --mount=type=tmpfs,target=/c,from=x true
