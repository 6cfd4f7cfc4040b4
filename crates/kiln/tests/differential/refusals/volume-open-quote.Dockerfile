FROM scratch
VOLUME /a "/b c"
