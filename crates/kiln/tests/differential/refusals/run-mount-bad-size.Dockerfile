FROM scratch
RUN --mount=type=tmpfs,target=/c,size=big true
