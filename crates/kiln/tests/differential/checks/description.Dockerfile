# check=experimental=InvalidDefinitionDescription
# bad words
ARG foo=bar
# base is the base
FROM scratch AS base
# wrong
FROM scratch AS other
