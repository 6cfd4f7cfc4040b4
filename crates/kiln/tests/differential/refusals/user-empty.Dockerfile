FROM scratch
ARG X
USER $X
