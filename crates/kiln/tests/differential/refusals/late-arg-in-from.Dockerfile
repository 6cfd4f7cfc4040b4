FROM scratch
ARG V=1
FROM $V
