FROM scratch
RUN --mont=type=bind true
