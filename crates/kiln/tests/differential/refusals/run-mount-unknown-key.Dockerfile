FROM scratch
RUN --mount=type=bind,targett=/x true
