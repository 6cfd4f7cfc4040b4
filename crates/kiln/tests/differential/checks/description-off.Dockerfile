# bad words
ARG foo=bar
FROM scratch
