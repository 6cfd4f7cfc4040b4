# base is what all stand on
FROM scratch AS base
# test runs the tests
FROM base AS test
FROM scratch
# release is shipped
FROM base AS release
