FROM scratch
RUN --mount=type=cache,target=/c,mode=rwx true
