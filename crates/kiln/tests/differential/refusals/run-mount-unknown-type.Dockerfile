FROM scratch
RUN --mount=type=bond,target=/x true
