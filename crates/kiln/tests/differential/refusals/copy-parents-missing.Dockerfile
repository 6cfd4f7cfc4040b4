FROM scratch
COPY --parents no/such /x/
