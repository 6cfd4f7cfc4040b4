FROM scratch
ARG a=b c=d =e
