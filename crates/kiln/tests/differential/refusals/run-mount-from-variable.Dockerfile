ARG A=x
FROM scratch AS x
FROM scratch
ARG A
RUN --mount=from=$A,target=/c true
