FROM scratch
ARG foo=1
ENV path_x=$paht_x
COPY $fooo /
LABEL a=${nope} b=$foo c=${nope2:-d}
WORKDIR /$DIRR
