FROM scratch AS x
FROM scratch
RUN --mount=type=secret,id=a,from=x true
