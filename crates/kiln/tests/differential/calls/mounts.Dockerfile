FROM scratch AS a
RUN --mount=type=cache,target=/root/.cache --mount=type=cache,target=/x,id=k,sharing=locked true
FROM a
