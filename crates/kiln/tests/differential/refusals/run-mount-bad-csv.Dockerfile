FROM scratch
RUN --mount=type=bind,target=/c" true
