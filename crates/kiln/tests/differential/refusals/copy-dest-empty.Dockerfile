FROM scratch
ARG X
COPY f $X
